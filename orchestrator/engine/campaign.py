# SPDX-License-Identifier: Apache-2.0
"""The way through a run: wave after wave, a gate between them, and a stop that loses nothing.

Everything that matters is in the store, so that a run can be left at any point, by Ctrl-C or by a power loss, and resumed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Protocol

from orchestrator.engine.executor import Executor
from orchestrator.engine.job import Job, settings_of, worker_name
from orchestrator.engine.look import GOOD
from orchestrator.errors import InvalidInput
from orchestrator.fleet.inventory import Inventory
from orchestrator.fleet.rollout import closed, in_window
from orchestrator.store import leases, runs
from orchestrator.store.hosts import Seen, keep_seen
from orchestrator.store.runs import OPEN, RunRow, WaveRow
from orchestrator.store.store import Store, now, who

_TICK = 0.5  # seconds between two looks at what goes on
_LOOKING = 50  # times as long as a count of the wave's hosts took, until the next one
_ATTEMPTS = 4  # of one shard, before its hosts count as failed

#: Asked after a wave, and again when a run is resumed behind it: why no further wave may begin; "" = it may.
Gate = Callable[[RunRow, WaveRow], str]


class Watcher(Protocol):
    """Shows how a run goes on."""

    def wave(self, run: RunRow, wave: WaveRow, tally: dict[str, int]) -> None:
        """The state of the wave that is under way."""

    def note(self, text: str) -> None:
        """Something that happened."""


@dataclass
class Campaign:
    """One run on its way. ``gates``: asked between two waves besides the rollout's own limits, e.g. for a crash proof."""

    store: Store
    run: RunRow
    inventory: Inventory
    executor: Executor
    watcher: Watcher
    gates: Sequence[Gate] = ()
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    asked: int = field(default=0, init=False)  # how often somebody pressed Ctrl-C
    _next_look: float = field(default=0.0, init=False)
    _before: dict[int, Any] = field(default_factory=dict, init=False)  # signal → what it did before this run

    def go(self) -> str:
        """Go on until the end, a pause, or a gate that stays closed. Returns the state that the run is left in."""
        name, owner = f"run:{self.run.id}", worker_name("run")
        with leases.holding(self.store, name, owner, f"the run {self.run.id} is under way"), self._interruptible():
            return self._go()

    def _go(self) -> str:
        database, run = self.store.database, self.run
        settings = settings_of(run.settings)
        if not runs.move(database, run.id, "running", now(), who=who(), only_from=runs.RESUMABLE, what="running"):
            state = runs.state_of(database, run.id)
            raise InvalidInput(
                f"the run is {state}", where=run.id, why="it cannot go on from there", fix="kdo runs show"
            )
        waves = runs.waves(database, run.id)
        todo = [w for w in waves if w.state != "done"]
        first = waves[0].number if waves else 0
        for wave in todo:
            if wave is todo[0] and wave.number > first:  # resumed: a wave that has begun was let through before
                why = self._limits() if wave.state == "running" else self._closed(waves[wave.number - 1])
                if why:
                    return self._held(todo, wave, why)
            if settings.rollout.windows and not in_window(settings.rollout.windows, self.clock()):
                why = f"outside the rollout's windows ({'; '.join(settings.rollout.windows)} UTC)"
                return self._held(todo, wave, why)
            state = self._wave(wave)
            if state != "done":
                return self._left(state)
            if wave is not waves[-1]:
                self._soak(settings.rollout.soak)
                if not self._order() and (why := self._closed(wave)):
                    return self._held(todo, waves[wave.number + 1], why)
                pause = settings.rollout.pause
                if pause == "waves" or (pause == "canary" and wave.number == first):
                    return self._left("pausing", "the rollout pauses here for somebody to look")
            if self.asked:
                return self._left("pausing")
        return self._move("done")

    # -- one wave -----------------------------------------------------------------------------------------------------

    def _wave(self, wave: WaveRow) -> str:
        """Every shard of the wave. Returns done, or the order that ended it early: pausing, cancelling."""
        database, run = self.store.database, self.run
        runs.set_wave(database, run.id, wave.number, "running", now())
        silent = runs.silent_since(self.clock(), leases.PATIENCE)
        runs.lose(database, run.id, silent)
        waiting = [s.number for s in runs.shards(database, run.id, wave.number) if s.state != "done"]
        attempts: dict[int, int] = {}
        order = ""
        while waiting or self.executor.busy():
            order = self._order()
            if order == "cancelling" or self.asked > 1:
                self.executor.stop()
            if order and not self.executor.busy():
                break
            while waiting and not order and self.executor.room() > 0:
                number = waiting.pop(0)
                attempts[number] = attempts.get(number, 0) + 1
                self.executor.submit(self._job(number, attempts[number]))
            for ended in self.executor.poll(_TICK):
                if ended.ok:
                    continue
                runs.lose(database, run.id, "", [ended.shard])
                if order:
                    continue
                self.watcher.note(f"shard {ended.shard}: {ended.why}")
                if ended.again and attempts.get(ended.shard, 0) < _ATTEMPTS:
                    waiting.append(ended.shard)
                else:
                    self._give_up(ended.shard, ended.why)
            self._show(wave)
        self._show(wave, last=True)
        if order:
            return order
        failed, _ = self._bad(wave.number)
        runs.set_wave(database, run.id, wave.number, "done", now(), failed=failed)
        return "done"

    def _show(self, wave: WaveRow, *, last: bool = False) -> None:
        """How the wave goes on. To count its hosts takes the longer the more there are: it gets a small part of the time."""
        begun = time.monotonic()
        if not last and begun < self._next_look:
            return
        whole = wave.hosts == self.run.hosts  # which an index answers alone
        self.watcher.wave(self.run, wave, runs.tally(self.store.database, self.run.id, None if whole else wave.number))
        ended = time.monotonic()
        self._next_look = ended + _LOOKING * (ended - begun)

    def _job(self, number: int, attempt: int) -> Job:
        rows = runs.hosts_of(self.store.database, self.run.id, shard=number, states=OPEN)
        names = [h.host for h in rows if h.host in self.inventory.hosts]
        settings = settings_of(self.run.settings)
        row = runs.shard(self.store.database, self.run.id, number) if settings.sites else None
        return Job(
            store=self.store.url, run=self.run.id, shard=number, worker=worker_name(f"{number}.{attempt}"),
            hosts_only=self.inventory.subset(names), via=settings.sites.get(row.site, "") if row is not None else "",
        )  # fmt: skip

    def _give_up(self, number: int, why: str) -> None:
        """Hosts of a shard that nobody can do."""
        database = self.store.database
        rows = list(runs.hosts_of(database, self.run.id, shard=number, states=OPEN))
        found = [
            Seen(h.host, "failed", f"its worker did not come to an end: {why}"[:500], answered=False) for h in rows
        ]
        database.do(lambda s: keep_seen(s, self.run.id, now(), found))

    def _order(self) -> str:
        """What somebody has ordered meanwhile: pausing, cancelling, or nothing ("")."""
        state = runs.state_of(self.store.database, self.run.id)
        if state in ("pausing", "cancelling"):
            return state
        return "pausing" if self.asked else ""

    # -- between waves ------------------------------------------------------------------------------------------------

    def _bad(self, wave: int | None = None) -> tuple[int, int]:
        """Hosts that have failed, and hosts that could not be reached."""
        tally = runs.tally(self.store.database, self.run.id, wave)
        unreachable = tally.get("unreachable", 0)
        good = {*GOOD, *OPEN, "unreachable"}
        return sum(n for state, n in tally.items() if state not in good), unreachable

    def _closed(self, wave: WaveRow) -> str:
        """Why nothing begins after this wave; "" = it may. Ctrl-C ends whatever a gate waits for."""
        why = self._limits()
        for gate in self.gates:
            if why or self.asked:
                break
            try:
                with self._as_before(signal.SIGINT):
                    why = gate(self.run, wave)
            except KeyboardInterrupt:
                self.asked += 1
                return ""
            why = why or self._limits()  # what a gate has seen of hosts counts, too
        return why

    def _limits(self) -> str:
        if self.run.kind in runs.LOOKING:
            return ""
        failed, unreachable = self._bad()
        return closed(settings_of(self.run.settings).rollout, self.run.hosts, failed, unreachable)

    def _soak(self, seconds: int) -> None:
        deadline = time.monotonic() + seconds
        if seconds:
            self.watcher.note(f"waiting {seconds} s before the next wave (rollout.soak)")
        while time.monotonic() < deadline and not self._order():
            self.sleep(min(1.0, max(0.0, deadline - time.monotonic())))

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _held(self, todo: Sequence[WaveRow], at: WaveRow, why: str) -> str:
        for wave in todo:
            if wave.number >= at.number:
                runs.set_wave(self.store.database, self.run.id, wave.number, "held", now(), why=why)
        self.watcher.note(f"no further wave begins: {why}")
        return self._move("held", why)

    def _left(self, order: str, why: str = "") -> str:
        if order == "cancelling":
            runs.cancel_open(self.store.database, self.run.id)
            return self._move("cancelled")
        return self._move("interrupted" if self.asked else "paused", why)

    def _move(self, state: str, why: str = "") -> str:
        runs.move(self.store.database, self.run.id, state, now(), who=who(), why=why)
        return state

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C: nothing new begins, and what is under way comes to its end. Once more: it is ended now."""

        def asked(_signal: int, _frame: FrameType | None) -> None:
            self.asked += 1
            if self.asked == 1:
                self.watcher.note("stopping after the hosts that are being worked on; once more to stop at once")

        main = threading.current_thread() is threading.main_thread()
        self._before = {n: signal.signal(n, asked) for n in (signal.SIGINT, signal.SIGTERM) if main}
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    @contextmanager
    def _as_before(self, number: int) -> Iterator[None]:
        """A signal does for a while what it did before this run."""
        if number not in self._before:
            yield
            return
        ours = signal.signal(number, self._before[number])
        try:
            yield
        finally:
            signal.signal(number, ours)
