# SPDX-License-Identifier: Apache-2.0
"""A run on its way, on stderr: one live line for each wave on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TextIO

from orchestrator.reports.text import clean, one_line
from orchestrator.store.runs import BAD, LOOKING, OPEN, HostOf, RunRow, WaveRow

#: Seconds between two plain lines.
QUIET = 10.0
#: How many hosts are named while a run goes on.
NAMED = 20

Bad = Callable[[RunRow, WaveRow], Iterable[HostOf]]
_WIDTH = 24


def spent(seconds: float) -> str:
    """``90`` → ``1:30``."""
    whole = int(seconds)
    return (
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"
    )


class Lines:
    """Shows waves. ``file`` is a terminal or not; that decides the form."""

    def __init__(
        self, file: TextIO | None = None, clock: Callable[[], float] = time.monotonic, live: bool | None = None,
        bad: Bad | None = None,
    ) -> None:  # fmt: skip
        self.file = file or sys.stderr
        self.clock = clock
        self.live = self.file.isatty() if live is None else live
        self.bad = bad
        self._named: set[str] = set()
        self._counted = 0
        self._wave: tuple[str, int] | None = None
        self._began = 0.0
        self._done_before = 0
        self._last = 0.0
        self._open_line = False
        self._over = False

    def wave(self, run: RunRow, wave: WaveRow, tally: dict[str, int]) -> None:
        """The wave that is under way: done of all, rate, time left, and what came of the hosts."""
        moment = self.clock()
        left = sum(tally.get(s, 0) for s in OPEN)
        done = wave.hosts - left
        if self._wave != (run.id, wave.number):
            self._end()
            self._wave, self._began, self._done_before, self._last = (run.id, wave.number), moment, done, moment
            self._over, self._counted = False, 0
        self._failing(run, wave, tally)
        over = left == 0
        if over and self._over:
            return
        self._over = over
        if not self.live and not over and moment - self._last < QUIET:
            return
        self._last = moment
        text = self._text(run, wave, tally, done, left, moment - self._began)
        if self.live:
            print(f"\r\x1b[2K{text}", end="", file=self.file, flush=True)
            self._open_line = True
            if over:
                self._end()
        else:
            print(text, file=self.file, flush=True)

    def _failing(self, run: RunRow, wave: WaveRow, tally: dict[str, int]) -> None:
        """Hosts that have come to no good, each once, and of very many only the first: `kdo runs show` has them all."""
        count = sum(tally.get(s, 0) for s in BAD)
        if self.bad is None or count == self._counted or len(self._named) >= NAMED:
            return
        self._counted = count
        for host in self.bad(run, wave):
            if host.host not in self._named and len(self._named) < NAMED:
                self._named.add(host.host)
                self.note(one_line(f"{host.host}: {host.state}{': ' + host.why if host.why else ''}", 300))
                if len(self._named) == NAMED:
                    self.note(f"more of them: kdo runs show {run.id}")

    def _text(self, run: RunRow, wave: WaveRow, tally: dict[str, int], done: int, left: int, seconds: float) -> str:
        name = f" ({wave.name})" if wave.name else ""
        what = run.kind if run.kind in LOOKING else f"{run.kind} wave {wave.number + 1}{name}"
        rate = (done - self._done_before) / seconds if seconds > 0 else 0.0
        pace = f", {rate:.1f}/s" if rate >= 0.05 else ""
        time_left = (
            f", {spent(left / rate)} left" if rate >= 0.05 and left else f", {spent(seconds)}" if not left else ""
        )
        full = _WIDTH * done // max(wave.hosts, 1)
        bar = f" [{'#' * full}{'.' * (_WIDTH - full)}]" if self.live else ""
        states = ", ".join(f"{n} {s}" for s, n in sorted(tally.items()) if s not in OPEN)
        return one_line(f"{what}:{bar} {done}/{wave.hosts}{pace}{time_left}{': ' + states if states else ''}", 160)

    def note(self, text: str) -> None:
        """Something that happened, on a line of its own."""
        self._end()
        print(clean(text), file=self.file, flush=True)

    def _end(self) -> None:
        if self._open_line:
            print(file=self.file, flush=True)
            self._open_line = False
