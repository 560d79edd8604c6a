# SPDX-License-Identifier: Apache-2.0
"""Where reports go: a directory or an HTTPS server; what could not be sent waits in a small spool. And how one is read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from orchestrator.agent.fetch import check, hopeless, is_url, put
from orchestrator.documents.base import FORMAT_VERSION, encode, major
from orchestrator.documents.report import HostReport, ReportProblem
from orchestrator.errors import InvalidInput, KdoError, Problem, Unreachable
from orchestrator.files import read_limited, write_atomically
from orchestrator.fleet.collect import MAX_DOCUMENT, HostProblem, facts_from

MAX_REPORT = MAX_DOCUMENT  # bytes: 2 MiB
MAX_TOKEN = 8 << 10
SPOOLED = 8  # reports that wait at most; the oldest goes
WAITS = (1.0, 4.0, 16.0)  # seconds before each further try


def file_name(host: str) -> str:
    """``<sha256 of the host's name>.json``: no name can lead out of the directory or the address."""
    return f"{sha256(host.encode()).hexdigest()}.json"


def packed(report: HostReport) -> bytes:
    """Its bytes, small enough to be read back: facts that are too large are left out, and that is said."""
    data = encode(report)
    if len(data) <= MAX_REPORT:
        return data
    left = ReportProblem(
        what="the facts were left out of the report", where=report.host, why=f"{len(data)} bytes, at most {MAX_REPORT}"
    )
    return encode(msgspec.structs.replace(report, facts=None, problems=[*report.problems[:32], left]))


@dataclass(frozen=True)
class Destination:
    """Where a report goes. ``spool`` is ``None`` where nothing is kept for later."""

    place: str
    token_file: str = ""
    ca: str = ""
    spool: Path | None = None
    waits: Sequence[float] = WAITS
    sleep: Callable[[float], None] = time.sleep

    def checked(self) -> Destination:
        """Itself. Raises :class:`InvalidInput` when nothing could ever be sent there."""
        if is_url(self.place):
            check(self.place)
            self._token()
        elif not Path(self.place).is_dir():
            raise InvalidInput("there is no such directory", where=self.place, fix="make it, or give an https address")
        return self

    def send(self, report: HostReport) -> None:
        """Send it, and before it what waits. Raises :class:`KdoError`; what was not sent waits in the spool then."""
        data = packed(report)
        name = file_name(report.host)
        if not is_url(self.place):
            self._write(name, data)
            return
        try:
            for waiting in self._waiting():
                self._put(name, waiting.read_bytes(), ())
                waiting.unlink()
            self._put(name, data, self.waits)
        except KdoError:
            self._keep(report, data)
            raise
        except OSError as e:
            raise KdoError("the spool cannot be read", where=str(self.spool), why=e.strerror or str(e)) from None

    def _write(self, name: str, data: bytes) -> None:
        try:
            write_atomically(Path(self.place) / name, data, 0o640)
        except OSError as e:
            fix = "make room there, or allow it"
            raise KdoError(
                "the report cannot be written", where=self.place, why=e.strerror or str(e), fix=fix
            ) from None

    def _token(self) -> str:
        if not self.token_file:
            return ""
        try:
            data = read_limited(Path(self.token_file), MAX_TOKEN)
            token = (data or b"").decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as e:
            why = getattr(e, "strerror", None) or "it is not ASCII text"
            raise InvalidInput(
                "the token cannot be read", where=self.token_file, why=why, fix="mend the file"
            ) from None
        if not token or not token.isprintable() or " " in token:
            fix = "one line with the token and nothing else"
            raise InvalidInput("the token file holds no token", where=self.token_file, fix=fix)
        return token

    def _put(self, name: str, data: bytes, waits: Sequence[float]) -> None:
        url = f"{self.place.rstrip('/')}/{name}"
        for wait in (*waits, None):
            try:
                put(url, data, token=self._token(), ca=self.ca)
                return
            except Unreachable as e:
                if wait is None or hopeless(e):
                    raise
            self.sleep(wait)

    def _waiting(self) -> list[Path]:
        return sorted(self.spool.glob("*.json")) if self.spool is not None else []

    def _keep(self, report: HostReport, data: bytes) -> None:
        if self.spool is None:
            return
        with contextlib.suppress(OSError):  # the report was for somebody else; the caller tells why it was not sent
            self.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self.spool / f"{report.at.replace(':', '')}.json", data)
            for old in self._waiting()[:-SPOOLED]:
                old.unlink()


def read_report(path: Path) -> HostReport | Problem:
    """One report as a host has written it: untrusted. Sizes and types are checked, and that the file is named for its host.

    That a host writes only its own file is for whoever receives it to see to: by the token, or by the directory's rights.
    """
    fix = "look at what that host sends"
    try:
        data = read_limited(path, MAX_REPORT)
    except OSError as e:
        return Problem("the report cannot be read", str(path), e.strerror or str(e), fix)
    if data is None:
        return Problem("the report is too large", str(path), f"more than {MAX_REPORT} bytes", fix)
    try:
        report = msgspec.json.decode(data, type=HostReport)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        return Problem("this is not a report", str(path), str(e)[:300], fix)
    if report.kind != "HostReport" or major(report.format_version) != major(FORMAT_VERSION):
        why = f"{report.kind[:40]} {report.format_version[:20]}, this version reads HostReport {FORMAT_VERSION}"
        return Problem("this report cannot be read", str(path), why, "use the kdo that can")
    if path.name != file_name(report.host):
        why = f"it speaks for {report.host[:80]!r}, whose file has another name"
        return Problem("the report is not in its host's file", str(path), why, fix)
    if report.facts is not None:
        facts = facts_from(encode(report.facts), report.host)
        if isinstance(facts, HostProblem):
            return Problem(facts.what, str(path), facts.why, facts.fix)
        if facts.host != report.facts.host:
            why = f"facts of {report.facts.host[:80]!r} in a report of {report.host[:80]!r}"
            return Problem("the report holds another host's facts", str(path), why, fix)
    if report.verdict is not None and report.verdict.host != report.host:
        return Problem("the report holds another host's verdict", str(path), report.verdict.host[:80], fix)
    return report
