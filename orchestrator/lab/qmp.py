# SPDX-License-Identifier: Apache-2.0
"""A minimal client of the QEMU Machine Protocol: one command at a time, events kept."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from orchestrator.lab.process import LabError


class Qmp:
    """A connection to QEMU's monitor socket; a context manager."""

    def __init__(self, path: Path, *, timeout: float = 20) -> None:
        """Connect and negotiate; ``timeout`` in seconds holds for this and for each later answer."""
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        end = time.monotonic() + timeout
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if time.monotonic() > end:
                    self._socket.close()
                    raise LabError(f"cannot connect to {path}", where="QMP", why=str(error)) from error
                time.sleep(0.05)
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its value; raises LabError with QEMU's own words when it is refused."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise LabError("QEMU is gone", where=f"QMP {command}", why=str(error)) from error
        while True:
            answer = self._receive()
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise LabError("QEMU refuses", where=f"QMP {command}", why=str(answer["error"].get("desc", "")))
            else:
                return answer.get("return")

    def status(self) -> str:
        """QEMU's run state: ``running``, ``paused``, ``guest-panicked``, ``shutdown``, …"""
        return str(self.execute("query-status")["status"])

    def drain(self) -> list[dict[str, Any]]:
        """Read whatever events are waiting (also those a QEMU that has ended left behind); returns all so far."""
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0.2)
        try:
            while True:
                message = self._receive()
                if "event" in message:
                    self.events.append(message)
        except LabError:
            pass
        finally:
            self._socket.settimeout(timeout)
        return self.events

    def close(self) -> None:
        """Close the connection; QEMU keeps running."""
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    def _receive(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            try:
                data = self._socket.recv(65536)
            except OSError as error:
                raise LabError("QEMU does not answer", where="QMP", why=str(error)) from error
            if not data:
                raise LabError("QEMU has closed the connection", where="QMP")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message
