# SPDX-License-Identifier: Apache-2.0
"""The loop of ``kdo watch``: it waits for events, polls, looks, and tells what has turned. It never changes the host.

One thread. Between two looks it sleeps in ``select``; what it keeps is the last look and a bounded list of reasons.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Protocol

from orchestrator.agent.events import Debounce, Event, reason
from orchestrator.agent.interest import EventRow
from orchestrator.agent.look import Me, Orders, Seen, look, report, stamp, told
from orchestrator.agent.poll import Poller
from orchestrator.agent.turns import turned
from orchestrator.documents.report import HostReport, ReportProblem
from orchestrator.documents.verdict import Check
from orchestrator.documents.watch import Reason, WatchLine, WatchState
from orchestrator.errors import KdoError
from orchestrator.fleet.collect import HostProblem

#: Said when the kernel has dropped messages, and once for what happened while nobody listened.
LOST = Reason(id="events-lost", what="events were lost", seen="the socket was full")


_DEAF = 8  # failures in a row after which a socket is given up: it would be readable for ever


class Source(Protocol):
    """Where events come from: :class:`orchestrator.agent.monitor.Monitor`, or a recording."""

    def fileno(self) -> int:
        """For select()."""

    def events(self) -> Iterator[Event]:
        """What has come, without waiting. Raises :class:`OSError` when something was lost."""


@dataclass(frozen=True)
class Rhythm:
    """Seconds: between two polls, of quiet before a look, at most after the first event, between heartbeats."""

    poll: float = 60.0
    quiet: float = 5.0
    most: float = 60.0
    heartbeat: float = 3600.0


@dataclass
class Watch:
    """One watch. ``orders`` is asked before each look, ``say`` gets each line, ``send`` each report (it may raise)."""

    who: Me
    orders: Callable[[], Orders]
    rows: Sequence[EventRow]
    poller: Poller
    say: Callable[[WatchLine], None]
    send: Callable[[HostReport], None] | None = None
    monitor: Source | None = None
    rhythm: Rhythm = Rhythm()
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    now: Callable[[], float] = time.monotonic
    looks: int = 0
    events: int = 0
    state: WatchState | None = None
    seen: Seen | None = None
    _targets: list[str] = field(default_factory=list)
    _ended: bool = False
    _trouble: str = ""
    _deaf: int = 0

    # ------------------------------------------------------------------ one look

    def once(self, reasons: Sequence[Reason] = (), kind: str = "") -> Seen | None:
        """Look, tell what has turned, send a report. ``kind`` makes it tell something even where nothing has turned."""
        self.looks += 1
        problems: list[ReportProblem] = []
        seen: Seen | None = None
        orders = None
        try:
            orders = self.orders()
            problems += [told(p) for p in orders.problems]
            found = look(self.who, orders, self.clock())
            if isinstance(found, HostProblem):
                problems.append(told(found))
            else:
                seen = found
            self._targets = orders.pipeline.targets()
        except KdoError as e:
            problems += [told(p) for p in e.problems]
        except Exception as e:  # whatever it is, the next look may find it mended; ending would disarm the watch
            problems.append(_fault(e))
        line = self._line(seen, reasons, problems, kind)
        if line is not None:
            self.say(line)
        if self.send is not None and orders is not None and (line is not None or seen is None):
            try:
                self.send(report(self.who, "watch", self.clock(), orders.policy, seen, problems))
            except KdoError as e:
                self._problem([told(p) for p in e.problems])
        self.seen = seen or self.seen
        return seen

    def _line(
        self, seen: Seen | None, reasons: Sequence[Reason], problems: Sequence[ReportProblem], kind: str
    ) -> WatchLine | None:
        before, after = self.state, seen.state if seen is not None else None
        # The same trouble at every look is told once, and again when it has become another one.
        trouble = "; ".join(p.what for p in problems)
        fresh, self._trouble = bool(trouble) and trouble != self._trouble, trouble
        if after is None:
            return self._made("problem", reasons, before, None, problems) if fresh or kind else None
        checks: Sequence[Check] = seen.verdict.checks if seen is not None else ()
        self.state = after
        if before is None:
            return self._made("start", reasons, None, after, problems, checks)
        if before != after:
            return self._made("change", reasons, before, after, problems, checks)
        if kind or fresh:
            return self._made(kind or "problem", (), None, after, problems)
        return None

    def _made(
        self,
        kind: str,
        reasons: Sequence[Reason],
        before: WatchState | None,
        after: WatchState | None,
        problems: Sequence[ReportProblem] = (),
        checks: Sequence[Check] = (),
    ) -> WatchLine:
        return WatchLine(
            kind=kind,
            host=self.who.host,
            at=stamp(self.clock()),
            drift=after.drift if after is not None else False,
            reasons=list(reasons),
            before=before,
            after=after,
            turned=turned(before, after, checks) if after is not None and kind in ("start", "change") else [],
            problems=list(problems),
            looks=self.looks,
            events=self.events,
        )

    def _problem(self, problems: Sequence[ReportProblem]) -> None:
        self.say(self._made("problem", (), None, self.state, problems))

    # ------------------------------------------------------------------ the loop

    def end(self) -> None:
        """Leave the loop at the next turn."""
        self._ended = True

    def _poll(self, waiting: Debounce) -> None:
        try:
            found = self.poller.look(self._targets)
        except Exception as e:
            self._problem([_fault(e)])
            return
        for one in found:
            self.events += one.count
            waiting.add(one, self.now())

    def _first_picture(self, waiting: Debounce) -> None:
        """Before the first look: what changes while it looks is then seen by the next poll."""
        with suppress(KdoError):  # the first look says it
            self._targets = self.orders().pipeline.targets()
        self._poll(waiting)

    def _listen(self, waiting: Debounce) -> None:
        if self.monitor is None:
            return
        try:
            for event in self.monitor.events():
                self._deaf = 0
                why = reason(event, self.rows)
                if why is not None:
                    self.events += 1
                    waiting.add(why, self.now())
        except OSError as e:
            waiting.add(LOST, self.now())
            self._deaf += 1
            if self._deaf >= _DEAF:
                self.monitor = None
                self._problem([_fault(e, "no events of devices can be had any more; only polling is left")])

    def run(self) -> None:
        """Until it is told to end, by :meth:`end` or by a signal."""
        waiting = Debounce(self.rhythm.quiet, self.rhythm.most)
        with _wakeup(self.end) as wake:
            self._first_picture(waiting)
            self.once()
            next_poll = self.now() + self.rhythm.poll
            next_beat = self.now() + self.rhythm.heartbeat
            while not self._ended:
                listen = [wake] if self.monitor is None else [wake, self.monitor.fileno()]
                moments = [next_poll, next_beat, *([due] if (due := waiting.due()) is not None else [])]
                ready, _, _ = select.select(listen, [], [], max(0.0, min(moments) - self.now()))
                if wake in ready:
                    os.read(wake, 64)
                    continue
                if ready:
                    self._listen(waiting)
                if self.now() >= next_poll:
                    self._poll(waiting)
                    next_poll = self.now() + self.rhythm.poll
                due = waiting.due()
                if due is not None and self.now() >= due:
                    self.once(waiting.take())
                if self.now() >= next_beat:
                    # Also a look: room on the dump disk, for one, is told by no event and no file's time.
                    self.once((Reason(id="heartbeat", what="the heartbeat's own look"),), "heartbeat")
                    next_beat = self.now() + self.rhythm.heartbeat
        self.say(self._made("end", (), None, self.state))


def _fault(error: Exception, what: str = "the look failed") -> ReportProblem:
    why = f"{type(error).__name__}: {error}"[:300]
    return ReportProblem(what=what, why=why, fix="the next event or poll tries again; if it stays, report it")


@contextmanager
def _wakeup(end: Callable[[], None]) -> Iterator[int]:
    """A descriptor that becomes readable at SIGTERM and SIGINT, so that ``select`` returns at once."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        end()

    out, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {s: signal.signal(s, stop) for s in (signal.SIGTERM, signal.SIGINT)}
    old = signal.set_wakeup_fd(into, warn_on_full_buffer=False)
    try:
        yield out
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in before.items():
            signal.signal(number, handler)
        for descriptor in (out, into):
            os.close(descriptor)
