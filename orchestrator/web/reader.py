# SPDX-License-Identifier: Apache-2.0
"""What the pages and the API say, read from the store. Threads share a few read-only connections."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from orchestrator.documents.dashboard import (
    AuditLine,
    AuditPage,
    FleetStatus,
    HostFull,
    HostLine,
    HostPage,
    HostRun,
    ProofLine,
    Pulse,
    RunFull,
    RunHost,
    RunHosts,
    RunLine,
    RunList,
    Sighting,
    WaiverLine,
    WaiverList,
    Wave,
    Worker,
)
from orchestrator.documents.proof import Proof
from orchestrator.errors import InvalidInput
from orchestrator.planning.pipeline import Pipeline
from orchestrator.reports.collected import of_row
from orchestrator.reports.prometheus import Metrics
from orchestrator.reports.status import fleet_status, silent_since
from orchestrator.store import browse, runs
from orchestrator.store.browse import Wanted
from orchestrator.store.hosts import FINE, HostRow, history, numbers
from orchestrator.store.store import Store, now

T = TypeVar("T")

#: Connections that are kept; requests beyond them wait for one.
CONNECTIONS = 4
#: Seconds that the numbers of the fleet and of a run are believed: what a thousand viewers ask for is read once.
FRESH = 1.0
#: Runs that a pulse looks through for ones that are under way.
RECENT = 20


class Reader:
    """Answers from one store. ``pipeline``: of the policy that decides the fleet, for traces of its rules."""

    def __init__(self, url: str | None, pipeline: Pipeline | None = None) -> None:
        self.url = url
        self.pipeline = pipeline
        self._free: queue.LifoQueue[Store | None] = queue.LifoQueue()
        first = Store(url, create=False, readonly=True)  # which says at once what is wrong with it
        self.name = first.name
        for _ in range(CONNECTIONS - 1):
            self._free.put(None)
        self._free.put(first)
        self._kept: dict[Any, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def _store(self) -> Iterator[Store]:
        store = self._free.get(timeout=30)
        try:
            if store is None:
                store = Store(self.url, create=False, readonly=True)
            yield store
        finally:
            self._free.put(store)

    def close(self) -> None:
        """End the connections that nobody uses."""
        while True:
            try:
                store = self._free.get_nowait()
            except queue.Empty:
                return
            if store is not None:
                store.close()

    def _recent(self, key: Any, make: Callable[[], T]) -> T:
        """The same for everybody who asks within a moment, also when it was an error: a store that does not answer is not
        asked once more by each of those who waited."""
        with self._lock:
            moment = time.monotonic()
            self._kept = {k: v for k, v in self._kept.items() if moment - v[0] < FRESH}
            if key not in self._kept:
                found: T | Exception
                try:
                    found = make()
                except Exception as error:
                    found = error
                self._kept[key] = (time.monotonic(), found)
            kept = self._kept[key][1]
        if isinstance(kept, Exception):
            raise kept
        return kept  # type: ignore[no-any-return]

    def alive(self) -> bool:
        """Whether the store answers."""
        try:
            with self._store() as store:
                return bool(store.database.read("SELECT 1"))
        except Exception:  # whatever it is, the answer is no
            return False

    def status(self) -> FleetStatus:
        """The numbers of the fleet."""

        def make() -> FleetStatus:
            with self._store() as store:
                return fleet_status(numbers(store.database, silent_since(datetime.now(UTC))))

        return self._recent("status", make)

    def cells(self) -> dict[tuple[str, str], dict[str, int]]:
        """Arch and hypervisor → strategy → number of hosts."""

        def make() -> dict[tuple[str, str], dict[str, int]]:
            with self._store() as store:
                return browse.cells(store.database)

        return self._recent("cells", make)

    def pulse(self) -> Pulse:
        """The numbers, and the runs that are under way."""
        status = self.status()
        under_way = [r for r in self.runs(RECENT).runs if r.state in runs.ALIVE]
        bad = sum(n for s, n in status.states.items() if s not in FINE)
        return Pulse(at=now(), states=status.states, hosts=status.hosts, bad=bad, runs=under_way)

    def metrics(self) -> bytes:
        """The numbers for Prometheus."""
        status = self.status()
        strategies = Counter[str]()
        for chosen in self.cells().values():
            strategies.update(chosen)
        with self._store() as store:
            oldest = browse.oldest_answer(store.database)
            count = browse.run_states(store.database)
        return Metrics.of(status, strategies, oldest, count).text(datetime.now(UTC))

    def hosts(self, wanted: Wanted, order: str, down: bool, offset: int, limit: int) -> HostPage:
        """Some hosts."""
        with self._store() as store:
            total, rows = browse.host_page(store.database, wanted, order=order, down=down, offset=offset, limit=limit)
        return HostPage(total=total, offset=offset, hosts=[_line(r) for r in rows])

    def host(self, name: str) -> HostFull | None:
        """Everything of one host; None = it is not on record."""
        with self._store() as store:
            row = browse.host_row(store.database, name)
            if row is None:
                return None
            return HostFull(
                host=of_row(store, row, True, self.pipeline),
                proofs=[
                    _proof(store.document(h, Proof), row) for h in browse.proofs_of(store.database, name)
                ],
                sightings=[
                    Sighting(facts=f, first_seen=a, last_seen=b) for f, a, b in history(store.database, name)[::-1]
                ],
                runs=[
                    HostRun(run=r, kind=k, wave=h.wave, state=h.state, before=h.before, at=h.at or "", why=h.why)
                    for r, k, h in browse.runs_of_host(store.database, name)
                ],
                traced=self._untraced(row),
            )  # fmt: skip

    def _untraced(self, row: HostRow) -> str:
        if not row.facts:
            return "it has never answered"
        if self.pipeline is None or self.pipeline.policy.hash != row.policy_hash:
            return f"another policy decided it ({row.policy_hash[:12]}); give that one to kdo serve with -p"
        return ""

    def runs(self, limit: int, kind: str = "") -> RunList:
        """The newest runs."""

        def make() -> RunList:
            with self._store() as store:
                found = runs.listed(store.database, limit, kind)
                tallies = browse.run_tallies(store.database, [r.id for r in found])
            return RunList(runs=[_run(r, tallies[r.id]) for r in found])

        return self._recent(("runs", limit, kind), make)

    def run(self, id: str) -> RunFull | None:
        """One run with its waves."""
        return self._recent(("run", id), lambda: self._run(id))

    def _run(self, id: str) -> RunFull | None:
        with self._store() as store:
            row = _get(store, id)
            if row is None:
                return None
            tallies = browse.tallies(store.database, row.id)
            waves = runs.waves(store.database, row.id)
            shards = runs.shards(store.database, row.id) if row.state in runs.ALIVE else []
        whole: dict[str, int] = {}
        for tally in tallies.values():
            for state, number in tally.items():
                whole[state] = whole.get(state, 0) + number
        made = [_wave(w, tallies.get(w.number, {})) for w in waves]
        working: dict[str, list[str]] = {}
        for s in shards:
            if s.state == "running":
                working.setdefault(s.worker, []).append(s.beat or "")
        rate, left = _pace(made)
        return RunFull(
            run=_run(row, whole), alive=row.state in runs.ALIVE, waves=made, rate=rate, left=left,
            workers=[Worker(name=name, shards=len(beats), beat=max(beats)) for name, beats in sorted(working.items())],
        )  # fmt: skip

    def run_hosts(self, id: str, states: Sequence[str], wave: int | None, offset: int, limit: int) -> RunHosts | None:
        """Some hosts of a run."""
        with self._store() as store:
            row = _get(store, id)
            if row is None:
                return None
            total, found = browse.run_host_page(
                store.database, row.id, states=states, wave=wave, offset=offset, limit=limit
            )
        rows = [
            RunHost(host=h.host, wave=h.wave, state=h.state, before=h.before, attempts=h.attempts, at=h.at or "", why=h.why)
            for h in found
        ]  # fmt: skip
        return RunHosts(run=row.id, total=total, offset=offset, hosts=rows)

    def waivers(self) -> WaiverList:
        """The waivers that count."""
        with self._store() as store:
            found = browse.waivers_used(store.database)
        return WaiverList(
            waivers=[WaiverLine(id=i, about=a, approver=p, expires=e, hosts=n) for i, a, p, e, n in found]
        )

    def audit(self, offset: int, limit: int) -> AuditPage:
        """Some entries of the audit trail."""
        with self._store() as store:
            total, found = browse.audit_page(store.database, offset, limit)
        rows = [
            AuditLine(number=e.number, at=e.at, who=e.who, what=e.what, subject=e.subject, detail=e.detail, hash=e.hash)
            for e in found
        ]
        return AuditPage(total=total, offset=offset, entries=rows)


def _get(store: Store, id: str) -> runs.RunRow | None:
    try:
        return runs.get(store.database, id)
    except InvalidInput:
        return None


def _line(row: HostRow) -> HostLine:
    return HostLine(
        host=row.host, state=row.state, why=row.why, arch=row.arch, hypervisor=row.hypervisor, platform=row.platform,
        strategy=row.strategy, rule=row.rule, kernel=row.kernel, proof=row.proof, tags=row.tags.split(), run=row.run,
        seen=row.seen, since=row.since,
    )  # fmt: skip


def _proof(proof: Proof, row: HostRow) -> ProofLine:
    counts = proof.how == "crash-test" and (proof.state, proof.kernel) == (row.desired, row.kernel)
    return ProofLine(
        at=proof.at, how=proof.how, outcome=proof.outcome, crash=proof.crash, kernel=proof.kernel, strategy=proof.strategy,
        size=proof.dump.size, panic=proof.dump.panic, what=proof.what, counts=counts,
    )  # fmt: skip


def _run(row: runs.RunRow, tally: dict[str, int]) -> RunLine:
    return RunLine(
        id=row.id, kind=row.kind, state=row.state, who=row.who, policy=row.policy, hosts=row.hosts,
        done=row.hosts - browse.still_open(tally), bad=sum(tally.get(s, 0) for s in runs.BAD), created=row.created,
        started=row.started or "", ended=row.ended or "", why=row.why, tally=tally,
    )  # fmt: skip


def _wave(wave: runs.WaveRow, tally: dict[str, int]) -> Wave:
    return Wave(
        number=wave.number, name=wave.name, state=wave.state, hosts=wave.hosts, done=wave.hosts - browse.still_open(tally),
        failed=sum(tally.get(s, 0) for s in runs.BAD), started=wave.started or "", ended=wave.ended or "", why=wave.why,
        tally=tally,
    )  # fmt: skip


def _pace(waves: Sequence[Wave]) -> tuple[float | None, int | None]:
    """Hosts a second in the wave that is under way, and the seconds until it ends."""
    wave = next((w for w in waves if w.state == "running" and w.started), None)
    if wave is None or not wave.done:
        return None, None
    spent = (datetime.now(UTC) - datetime.fromisoformat(wave.started.replace("Z", "+00:00"))).total_seconds()
    rate = wave.done / max(spent, 0.001)
    return round(rate, 2), round((wave.hosts - wave.done) / rate)
