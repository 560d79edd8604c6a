# SPDX-License-Identifier: Apache-2.0
"""A guest's serial console: every line with the time it came, across restarts of the guest."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lab.process import LabError

TAIL_LINES = 15  # that an error shows
CONNECT_SECONDS = 20
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f]")


@dataclass(frozen=True)
class Line:
    """One console line; ``seconds`` since the guest was first started, ``text`` without terminal escapes."""

    seconds: float
    text: str


class Console:
    """Reads a QEMU character-device socket in a thread, keeps the lines and appends them to ``log``."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.lines: list[Line] = []
        self._started = time.monotonic()
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def attach(self, path: Path) -> None:
        """Start reading the socket ``path`` of a QEMU that was just started; raises LabError when it never listens."""
        end = time.monotonic() + CONNECT_SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
                break
            except OSError as error:
                connection.close()
                if time.monotonic() > end:
                    raise LabError(f"cannot connect to {path}", where="attach console", why=str(error)) from error
                time.sleep(0.05)
        self._socket = connection
        self._thread = threading.Thread(target=self._read, args=(connection,), daemon=True, name="console")
        self._thread.start()

    def detach(self) -> None:
        """Wait for the reader to reach the end of a QEMU that has ended, so that no last line is missed."""
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def mark(self) -> int:
        """Position after the last line so far, to be given as ``since``."""
        return len(self.lines)

    def texts(self, since: int = 0) -> list[str]:
        """Texts of the lines from ``since``."""
        return [line.text for line in self.lines[since:]]

    def tail(self) -> str:
        """The last lines, for an error message."""
        return "\n".join(f"[{line.seconds:8.2f}] {line.text}" for line in self.lines[-TAIL_LINES:]) or "(no output)"

    def wait(self, pattern: str, *, deadline: float, since: int = 0, stage: str = "",
             alive: Callable[[], bool] = lambda: True) -> Line:  # fmt: skip
        """Return the first line from ``since`` that matches the regular expression.

        ``deadline`` is in seconds from now. Raises LabError with the last console lines when it passes, or when
        ``alive`` says that no more can come.
        """
        wanted, position = re.compile(pattern), since
        end = time.monotonic() + deadline
        where = stage or f"wait for {pattern!r} on the console"
        while True:
            running = alive()  # asked before looking, so that the last lines are still looked at
            lines = self.lines
            while position < len(lines):
                if wanted.search(lines[position].text):
                    return lines[position]
                position += 1
            if not running:
                raise LabError("the guest ended first", where=where, why=self.tail())
            if time.monotonic() > end:
                raise LabError(f"nothing within {deadline:.0f} s", where=where, why=self.tail())
            time.sleep(0.05)

    def _read(self, connection: socket.socket) -> None:
        pending = b""
        with self.log.open("a", encoding="utf-8") as log:
            while True:
                try:
                    data = connection.recv(65536)
                except OSError:
                    data = b""
                *complete, pending = (pending + data).split(b"\n")
                if not data and pending:
                    complete.append(pending)
                now = time.monotonic() - self._started
                for raw in complete:
                    line = Line(now, _ESCAPES.sub("", raw.decode("utf-8", "replace")).rstrip())
                    self.lines.append(line)
                    log.write(f"[{now:8.2f}] {line.text}\n")
                log.flush()
                if not data:
                    return
