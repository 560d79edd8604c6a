# SPDX-License-Identifier: Apache-2.0
"""HTTPS, out of the host only: certificates are checked, answers have a limit, nothing is followed elsewhere.

Plain http is for tests on loopback. Proxies are taken from the environment as other tools do, never for loopback.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import urlsplit

from orchestrator import __version__
from orchestrator.errors import InvalidInput, Unreachable

TIMEOUT = 30.0  # seconds without a byte
WHOLE = 120.0  # seconds for one answer
_CHUNK = 64 << 10


@dataclass(frozen=True)
class Fetched:
    """An answer. ``body`` is ``None`` when what we have is still the same (304)."""

    body: bytes | None
    etag: str = ""


class _Refused(Unreachable):
    """The server was reached and says no, or is not the right one. ``again``: it may say yes later."""

    def __init__(self, what: str, *, where: str, why: str, fix: str, again: bool) -> None:
        super().__init__(what, where=where, why=why, fix=fix)
        self.again = again


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed file comes from where it was asked for; a report goes to nobody else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


def is_url(text: str) -> bool:
    """Whether it is meant as an address, not as a path."""
    return "://" in text


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(url: str) -> None:
    """Raise :class:`InvalidInput` for an address that is not asked."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as e:
        raise InvalidInput("this is not an address", where=url[:200], why=str(e), fix="https://HOST/PATH") from None
    if parts.username is not None or parts.password is not None:
        shown = f"{parts.scheme}://…@{host}{parts.path}"
        why = "an address stands in process lists and logs"
        raise InvalidInput("no user or password in an address", where=shown, why=why, fix="--report-token FILE")
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and _loopback(host):
        return
    why = "without a certificate anybody on the way could answer" if parts.scheme == "http" else "only https is spoken"
    raise InvalidInput("this address is not asked", where=url[:200], why=why, fix="https://HOST/PATH, or a file")


def _opener(url: str, ca: str) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as e:
        fix = "give a file of certificates in PEM"
        raise InvalidInput("the certificates cannot be read", where=ca, why=str(e), fix=fix) from None
    local = _loopback(urlsplit(url).hostname or "")
    proxies = urllib.request.ProxyHandler({} if local else None)
    return urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context), _NoRedirect())


def _ask(request: urllib.request.Request, ca: str, timeout: float) -> Any:
    url = request.full_url
    try:
        return _opener(url, ca).open(request, timeout=timeout)  # the scheme was looked at by check()
    except urllib.error.HTTPError as e:
        with e:
            if e.code == 304:
                return None
            fix = "look at the server's log" if e.code >= 500 else "mend the address, or what the server allows"
            if 300 <= e.code < 400:
                fix = f"redirects are not followed; it says {str(e.headers.get('Location', ''))[:200]!r}"
            raise _Refused(
                "the server says no",
                where=url,
                why=f"{e.code} {str(e.reason)[:100]}",
                fix=fix,
                again=e.code >= 500 or e.code in (408, 425, 429),
            ) from None
    except (OSError, HTTPException, ValueError) as e:
        raise _unreachable(url, e) from None


def _unreachable(url: str, error: Exception) -> Unreachable:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        fix = "give the authority that has signed it with --ca FILE, or mend the server's certificate"
        what = "the server's certificate does not count"
        return _Refused(what, where=url, why=reason.verify_message, fix=fix, again=False)
    why = str(reason)[:200] or type(reason).__name__
    return Unreachable("the server cannot be reached", where=url, why=why, fix="check name, port, network and proxy")


def get(
    url: str, limit: int, *, etag: str = "", ca: str = "", timeout: float = TIMEOUT, whole: float = WHOLE
) -> Fetched:
    """The body, at most ``limit`` bytes, within ``whole`` seconds; ``etag`` asks only for another one.

    Raises :class:`Unreachable`, and :class:`InvalidInput` for what must not be asked or is too large.
    """
    check(url)
    headers = {"User-Agent": f"kdo/{__version__}", "Accept": "*/*"} | ({"If-None-Match": etag} if etag else {})
    end = time.monotonic() + whole
    answer = _ask(urllib.request.Request(url, headers=headers), ca, timeout)  # noqa: S310  (check() has seen it)
    if answer is None:
        return Fetched(None, etag)
    too_large = InvalidInput(
        "the answer is too large", where=url, why=f"more than {limit} bytes", fix="is that the file?"
    )
    with answer:
        length = answer.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > limit:
            raise too_large
        body = bytearray()
        try:
            while chunk := answer.read1(_CHUNK):
                body += chunk
                if len(body) > limit:
                    raise too_large
                if time.monotonic() > end:
                    raise TimeoutError(f"not done after {whole:.0f} s")
        except (OSError, HTTPException) as e:
            raise _unreachable(url, e) from None
        if length.isdigit() and len(body) != int(length):
            raise _unreachable(url, HTTPException(f"{len(body)} of {length} bytes came"))
        return Fetched(bytes(body), str(answer.headers.get("ETag", ""))[:256])


def put(url: str, data: bytes, *, token: str = "", ca: str = "", timeout: float = TIMEOUT) -> None:
    """Send a document. Raises :class:`Unreachable`; :func:`hopeless` tells whether to try again makes sense."""
    check(url)
    headers = {"User-Agent": f"kdo/{__version__}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers, method="PUT")  # noqa: S310  (check() has seen it)
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    answer = _ask(request, ca, timeout)
    if answer is not None:
        with answer:
            pass


def hopeless(error: Exception) -> bool:
    """Whether the same request would be refused again."""
    return isinstance(error, InvalidInput) or (isinstance(error, _Refused) and not error.again)
