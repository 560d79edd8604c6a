# SPDX-License-Identifier: Apache-2.0
"""One shard, done: ask its hosts, change them where the run is about that, and write down what came of each.

Everything here may begin a second time: a worker that is killed leaves hosts that are open, and whoever takes the shard next
looks at them first. What a host says of itself counts, not what the dead worker had meant to do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from orchestrator.checks.waive import plan_host
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan, Plan
from orchestrator.documents.proof import Proof
from orchestrator.documents.verdict import Outcome
from orchestrator.engine.job import Settings
from orchestrator.engine.look import after, looked, no_answer
from orchestrator.fleet.collect import Collected, HostProblem, from_hosts
from orchestrator.fleet.fast import sweep
from orchestrator.fleet.inventory import Inventory, read_subset
from orchestrator.fleet.runner import Progress, Whom
from orchestrator.fleet.session import Run
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.waivers import Waivers
from orchestrator.proof.store import by_host
from orchestrator.proof.store import stored as stored_proofs
from orchestrator.store import audit, leases, runs
from orchestrator.store.database import Statements
from orchestrator.store.hosts import Document, Seen, keep_seen, proofs_in
from orchestrator.store.runs import HostOf, RunRow
from orchestrator.store.store import Store, now

_MORE = 15.0  # seconds beyond the patience with a silent worker
_BATCH = 50  # hosts that are written in one transaction while a sweep goes on


@dataclass
class Shard:
    """A shard in the hands of a worker."""

    store: Store
    run: RunRow
    number: int
    worker: str
    settings: Settings
    pipeline: Pipeline
    waivers: Waivers
    whom: Whom
    attempt: int = 1
    note: str = ""  # what is worth knowing of the shard afterwards
    progress: Progress | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _known_proofs: Mapping[str, Sequence[Proof]] | None = field(default=None, init=False)

    def perform(self) -> None:
        """Do what is still open. Hosts that are done are not touched again."""
        rows = {h.host: h for h in runs.hosts_of(self.store.database, self.run.id, shard=self.number, states=runs.OPEN)}
        if not rows:
            return
        if self.run.kind in runs.LOOKING:
            self._sweep(sorted(rows))
        else:
            self._apply(rows)

    # -- looking ------------------------------------------------------------------------------------------------------

    def _sweep(self, names: Sequence[str]) -> None:
        runs.begin_hosts(self.store.database, self.run.id, names)
        batch: list[Seen] = []

        def take(item: Facts | HostProblem) -> None:
            if item.host not in open_:
                return
            open_.discard(item.host)
            batch.append(self._look(item) if isinstance(item, Facts) else no_answer(item))
            if len(batch) >= _BATCH:
                self._keep(batch)
                batch.clear()

        open_ = set(names)
        for item in self._answers(names, take):
            take(item)
        for host in sorted(open_):
            take(
                HostProblem(
                    host, "failed", "the host was never asked", "it is not in the worker's inventory", "kdo sweep again"
                )
            )
        self._keep(batch)

    def _answers(
        self, names: Sequence[str], take: Callable[[Facts | HostProblem], None]
    ) -> Iterable[Facts | HostProblem]:
        """Through the fast lane what it can ask, which it hands over as it comes; the rest through Ansible."""
        if self.settings.lane != "ansible" and not self.whom.via:
            hosts = {n: h for n, h in read_subset(self.whom.hosts_only).hosts.items() if n in set(names)}
            left = sweep(Inventory(hosts), self.pipeline.targets(), become=self.whom.become, on_facts=take)
            reasons = Counter(left.values()).most_common(3)
            self.note = "; ".join(f"{count} hosts not over the fast lane: {why}" for why, count in reasons)
            names = [n for n in names if n in left]
            if self.settings.lane == "fast":
                why = "only the fast lane was wanted"
                return [HostProblem(n, "failed", f"the fast lane cannot ask it: {left[n]}", why) for n in names]
        found = self._collect(names) if names else Collected()
        return [*found.facts, *found.problems]

    def _collect(self, names: Sequence[str]) -> Collected:
        return from_hosts(self.whom, self.pipeline.targets(), hosts=names, progress=self.progress)

    def _look(self, facts: Facts) -> Seen:
        return looked(self.pipeline, self.waivers, facts, {facts.host: self._proofs(facts.host)})

    def _proofs(self, host: str) -> Sequence[Proof]:
        """The crash tests of a host: those of the store, and those that this machine has made itself."""
        if self._known_proofs is None:
            self._known_proofs = by_host([*stored_proofs(), *proofs_in(self.store, self.run.id, self.number)])
        return self._known_proofs.get(host, ())

    def _keep(self, found: Sequence[Seen]) -> None:
        if found:
            at = now()
            self.store.database.do(lambda s: keep_seen(s, self.run.id, at, found))

    # -- changing -----------------------------------------------------------------------------------------------------

    def _apply(self, rows: dict[str, HostOf]) -> None:
        plans = {h: self.store.document(row.plan, HostPlan) for h, row in rows.items()}
        mine = self._lock(sorted(plans))
        runs.begin_hosts(self.store.database, self.run.id, mine)
        try:
            self._change([plans[h] for h in mine], rows)
        finally:
            leases.release(self.store.database, self.worker, [f"host:{h}" for h in mine])

    def _lock(self, names: Sequence[str]) -> list[str]:
        """The hosts that nobody else is changing; of the others it is said who does."""
        wanted = [f"host:{h}" for h in names]
        deadline = time.monotonic() + leases.PATIENCE + _MORE
        while True:
            held = leases.take(self.store.database, wanted, self.worker, self.clock(), self.run.id)
            # A worker of this run that died with them: they are free when it has been silent for long enough.
            if time.monotonic() > deadline or not any(by.endswith(f" {self.run.id}") for by in held.values()):
                break
            time.sleep(1.0)
        busy = {name.removeprefix("host:"): by for name, by in held.items()}
        why = "somebody else is changing it"
        self._keep([Seen(h, "drift", f"{why}: {by}", answered=False, result="busy") for h, by in busy.items()])
        return [h for h in names if h not in busy]

    def _change(self, plans: list[HostPlan], rows: dict[str, HostOf]) -> None:
        if not plans:
            return
        found = self._collect([p.host for p in plans])
        answered = {f.host for f in found.facts}
        told = {p.host for p in found.problems}
        silent = [
            HostProblem(p.host, "failed", "the host was never asked") for p in plans if p.host not in answered | told
        ]
        self._keep([no_answer(p) for p in [*found.problems, *silent]])
        plan = Plan(
            hosts=[p for p in plans if p.host in answered], hash=self.run.plan_hash, policy_hash=self.run.policy_hash
        )
        run = Run(
            self.pipeline, self.whom, plan, reboot=self.settings.reboot, trial=self.settings.trial, progress=self.progress,
            waivers=self.waivers, reboots=self._reboots(), settled=self._settled, clock=self.clock,
        )  # fmt: skip
        done = run.apply(found)
        before = {f.host: f for f in found.facts}
        kept = []
        for outcome in done.outcomes:
            facts = done.seen.get(outcome.host)
            if outcome.state == "stale" and rows[outcome.host].attempts > 0:
                outcome, facts = self._again(outcome, before[outcome.host])  # noqa: PLW2901
                if outcome.changed and not rows[outcome.host].outcome:
                    self._found(outcome.host)
            seen = self._look(facts) if facts is not None else None
            held = done.reboot_held.get(outcome.host, "")
            kept.append(after(outcome, seen, pending=outcome.host in done.pending_reboot, held=held))
        known = {o.host for o in done.outcomes}
        # A host with nothing left but a reboot has no transaction of its own.
        for host in sorted(answered - known):
            facts = done.seen.get(host, before[host])
            kept.append(
                after(Outcome(host=host, state="nothing"), self._look(facts), pending=host in done.pending_reboot)
            )
        self._keep(kept)

    def _again(self, outcome: Outcome, facts: Facts) -> tuple[Outcome, Facts | None]:
        """A host that a worker before may have changed already: when nothing is left to change, that is what happened."""
        left = plan_host(self.pipeline, facts, self.waivers)
        if left.changes or left.status not in ("none", "changes"):
            return outcome, None
        recovered = ["an earlier attempt of this run had changed it already"]
        return msgspec.structs.replace(outcome, state="committed", changed=True, recovered=recovered), facts

    def _found(self, host: str) -> None:
        """On record for the audit: it was changed, and whoever did it did not live to say so."""
        at = now()
        detail = {"run": self.run.id, "worker": self.worker}
        self.store.database.do(
            lambda s: audit.append(
                self.store.database, s, key=f"{self.run.id}:{host}:found", at=at, who=self.run.who,
                what="transaction found committed", subject=host, detail=detail,
            )
        )  # fmt: skip

    def _settled(self, outcomes: list[Outcome]) -> None:
        """On record as soon as a transaction has ended; what the host shows afterwards comes later."""
        at = now()
        found = [
            Seen(o.host, "drift", "changed, not looked at yet", answered=False, final=False,
                 documents={"outcome": Document.of("outcome", o)})
            for o in outcomes if o.state == "committed"
        ]  # fmt: skip

        def work(s: Statements) -> None:
            keep_seen(s, self.run.id, at, found)
            for o in outcomes:
                audit.append(
                    self.store.database, s, key=f"{self.run.id}:{o.host}:{o.transaction}:{o.state}:{self.attempt}", at=at,
                    who=self.run.who, what=f"transaction {o.state}", subject=o.host,
                    detail={"run": self.run.id, "transaction": o.transaction, "changed": o.changed, "worker": self.worker},
                )  # fmt: skip

        self.store.database.do(work)

    def _reboots(self) -> int | None:
        """This shard's part of the hosts that may reboot at the same time."""
        limit = self.settings.rollout.reboots
        return max(1, limit // max(1, self.settings.parallel)) if limit is not None else None
