# SPDX-License-Identifier: Apache-2.0
"""Who may look: a token, or a proxy that has asked already. And what a browser may do with the answers."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

#: What every answer carries. Pages take style and script from here alone, and nobody may put them into a frame.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
#: The only path that answers everybody; it says nothing but whether the store can be read.
OPEN = "/healthz"


@dataclass(frozen=True)
class Guard:
    """Rules of one server. ``how``: token | proxy | none.

    ``names``: what the Host header may be, without a port; empty = anything. A page of somebody else's whose name is made to
    point here (DNS rebinding) is thereby no way in.
    """

    how: str
    token: str = field(default="", repr=False)
    header: str = "x-forwarded-user"
    proxies: Sequence[str] = ()
    names: Sequence[str] = ()

    def allows(self, headers: dict[str, str], client: str | None) -> str | None:
        """Who it is that asks; None = nobody who may. ``client``: address of the peer, None behind a Unix socket."""
        if self.how == "none":
            return "anybody"
        if self.how == "proxy":
            return (headers.get(self.header) or None) if client is None or self._trusted(client) else None
        return "the token's owner" if self._has_token(headers.get("authorization", "")) else None

    def _trusted(self, client: str) -> bool:
        try:
            address = ipaddress.ip_address(client)
        except ValueError:
            return False
        return any(address in ipaddress.ip_network(p, strict=False) for p in self.proxies)

    def _has_token(self, given: str) -> bool:
        kind, _, value = given.partition(" ")
        if kind.lower() == "basic":  # what a browser sends: any name, and the token as the password
            try:
                value = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif kind.lower() != "bearer":
            return False
        return bool(self.token) and hmac.compare_digest(value.strip().encode(), self.token.encode())

    def knows(self, host: str) -> bool:
        """Whether the Host header is one of ours."""
        name = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        return not self.names or name.lower() in self.names


class GuardMiddleware:
    """Stands before everything else."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it: 400 for a name that is not ours, 401 for somebody who may not look."""
        if scope["type"] != ScopeType.HTTP:
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        client = scope.get("client")
        if not self.guard.knows(headers.get("host", "")):
            await _answer(sent, 400, b"this server is not called so: kdo serve --name NAME\n")
        elif scope["path"] != OPEN and self.guard.allows(headers, client[0] if client else None) is None:
            asked = [(b"www-authenticate", b'Basic realm="kdump-orchestrator", charset="UTF-8"')]
            said = b"who are you? the token is in the file that kdo serve names when it starts\n"
            if self.guard.how == "proxy":
                asked, said = [], b"this server answers only to its proxy\n"
            await _answer(sent, 401, said, asked)
        else:
            await self.app(scope, receive, sent)


async def _answer(send: Send, status: int, said: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [kind, *headers]})
    await send({"type": "http.response.body", "body": said, "more_body": False})
