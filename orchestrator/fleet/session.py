# SPDX-License-Identifier: Apache-2.0
"""Applying a plan: hosts that have moved on are refused, the others run one transaction each, wave after wave.

After each wave everything is read again; when too many hosts are not as they should be, no further wave begins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from orchestrator.checks.run import verdict
from orchestrator.documents.plan import HostPlan, Plan
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.fleet.act import reboot as reboot_hosts
from orchestrator.fleet.act import transact
from orchestrator.fleet.collect import Collected, from_hosts
from orchestrator.fleet.rollout import may_reboot, too_many, waves
from orchestrator.fleet.runner import Progress, Whom
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline


@dataclass
class Applied:
    """What came of it, host by host."""

    outcomes: list[Outcome] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    pending_reboot: list[str] = field(default_factory=list)
    reboot_held: dict[str, str] = field(default_factory=dict)  # host → why the policy allows no reboot now
    held: list[str] = field(default_factory=list)  # hosts of waves that did not begin, because too many had failed
    waves: int = 0


@dataclass(frozen=True)
class Run:
    """One way through a plan. ``clock`` says when a reboot would happen."""

    pipeline: Pipeline
    whom: Whom
    plan: Plan
    check: bool = False
    reboot: bool = False
    progress: Progress | None = None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def apply(self, now: Collected) -> Applied:
        """Apply the plan, wave after wave; ``now`` are the hosts' facts of this moment, taken before anything was changed."""
        out = Applied()
        ready = self._ready(now, out)
        if self.check:
            work = [h for h in ready if h.changes]
            out.outcomes += (
                transact(self.whom, work, self.plan.hash, check=True, progress=self.progress) if work else []
            )
        else:
            failed = 0
            rollout = self.plan.rollout
            for wave in waves(ready, rollout):
                if too_many(failed, rollout, len(ready)):
                    out.held += [h.host for h in wave]
                    continue
                out.waves += 1
                failed += self._wave(wave, out)
        out.outcomes.sort(key=lambda o: o.host)
        return out

    def _ready(self, now: Collected, out: Applied) -> list[HostPlan]:
        """The hosts that change and are still what the plan was made for."""
        present = {f.host: f for f in now.facts}
        ready: list[HostPlan] = []
        for host in self.plan.hosts:
            facts = present.get(host.host)
            if host.status != "changes" or facts is None:  # unreachable now (reported), or left out by --limit
                continue
            if fingerprint(facts, self.pipeline.judge(facts).platform) != host.fingerprint:
                out.outcomes.append(Outcome(host=host.host, state="stale"))
                continue
            ready.append(host)
        return ready

    def _wave(self, wave: list[HostPlan], out: Applied) -> int:
        """Change, reboot and look again. Returns how many hosts of the wave are not as they should be."""
        work = [h for h in wave if h.changes]
        outcomes = transact(self.whom, work, self.plan.hash, progress=self.progress) if work else []
        done = {o.host for o in outcomes if o.state in ("committed", "nothing")}
        needing = [h for h in wave if h.reboot and (h.host in done or not h.changes)]
        if self.reboot and needing:
            outcomes, needing = self._reboot(needing, outcomes, out)
        pending = {h.host for h in needing}
        out.pending_reboot += sorted(pending)
        out.outcomes += outcomes
        bad = {o.host for o in outcomes if o.state not in ("committed", "nothing")}
        settled = sorted((done | {h.host for h in wave if not h.changes}) - pending - bad)
        if settled:
            again = from_hosts(self.whom, self.pipeline.targets(), hosts=settled)
            for facts in again.facts:
                judged = self.pipeline.judge(facts)
                result = verdict(self.pipeline.planner, facts, judged.platform, judged.decision)
                out.verdicts.append(result)
                bad |= {facts.host} if result.status == "fail" else set()
            bad |= set(settled) - {f.host for f in again.facts}
        return len(bad)

    def _reboot(
        self, needing: list[HostPlan], outcomes: list[Outcome], out: Applied
    ) -> tuple[list[Outcome], list[HostPlan]]:
        """Reboot what may be rebooted now. Returns the outcomes with their reboots, and the hosts that still wait."""
        held = {h.host: why for h in needing if (why := may_reboot(h, self.clock()))}
        out.reboot_held |= held
        names = [h.host for h in needing if h.host not in held]
        answers = reboot_hosts(self.whom, names, progress=self.progress) if names else {}
        outcomes = [_rebooted(o, answers) for o in outcomes]
        known = {o.host for o in outcomes}
        outcomes += [_rebooted(Outcome(host=h, state="nothing"), answers) for h in names if h not in known]
        waiting = [h for h in needing if h.host in held or answers.get(h.host, "it was not rebooted")]
        return outcomes, waiting


def _rebooted(outcome: Outcome, answers: dict[str, str]) -> Outcome:
    if outcome.host not in answers:
        return outcome
    reason = answers[outcome.host]
    if not reason:
        return msgspec.structs.replace(outcome, rebooted=True)
    error = {
        "what": "the host did not come back from its reboot",
        "why": reason,
        "fix": "look at its console; kdo rollback puts the old arguments back",
    }
    return msgspec.structs.replace(outcome, state="failed", error=error)
