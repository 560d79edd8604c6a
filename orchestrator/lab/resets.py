# SPDX-License-Identifier: Apache-2.0
"""Stands by while somebody else reboots a guest: under -no-reboot a reset ends QEMU, and it has to be started again."""

from __future__ import annotations

import threading
import time
from typing import Final

from orchestrator.lab.guest import Guest
from orchestrator.lab.process import LabError

POLL_SECONDS: Final = 0.2


class Resets:
    """Stands by as firmware would: starts the guest again after each of its resets, and notes the moment.

    A context manager. ``times``: that many resets are expected, and its end waits for the last start (at most
    ``patience`` seconds); ``None``: whatever number comes until then, and the end does not wait.
    """

    def __init__(self, guest: Guest, times: int | None = 1, *, patience: float = 60) -> None:
        self.guest, self.times, self.patience = guest, times, patience
        self.seconds: list[float] = []  # from the beginning to each start
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="resets")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS) and len(self.seconds) != self.times:
            if self.guest.alive():
                continue
            try:
                self.guest.wait_reset(POLL_SECONDS)  # collects what the QEMU that has ended left
                self.guest.start()
            except LabError:
                return
            self.seconds.append(round(time.monotonic() - self._began, 1))

    def end(self) -> None:
        """Stop standing by; a start that has begun is finished."""
        if self.times is not None:
            self._thread.join(self.patience)
        self._over.set()
        self._thread.join()

    def __enter__(self) -> Resets:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
