# SPDX-License-Identifier: Apache-2.0
"""Applying a plan: hosts that have moved on are refused, the others run one transaction each, then everything is read again."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from orchestrator.checks.run import verdict
from orchestrator.documents.plan import HostPlan, Plan
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.fleet.act import reboot as reboot_hosts
from orchestrator.fleet.act import transact
from orchestrator.fleet.collect import Collected, from_hosts
from orchestrator.fleet.runner import Progress, Whom
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline


@dataclass
class Applied:
    """What came of it, host by host."""

    outcomes: list[Outcome] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    pending_reboot: list[str] = field(default_factory=list)


def apply_plan(
    pipeline: Pipeline,
    whom: Whom,
    plan: Plan,
    now: Collected,
    *,
    check: bool,
    reboot: bool,
    progress: Progress | None = None,
) -> Applied:
    """Apply ``plan``; ``now`` are the hosts' facts of this moment, taken before anything was changed."""
    out = Applied()
    present = {f.host: f for f in now.facts}
    ready: list[HostPlan] = []
    for host in plan.hosts:
        if host.status != "changes":
            continue
        facts = present.get(host.host)
        if facts is None:  # unreachable now (reported with the problems), or left out by --limit
            continue
        if fingerprint(facts, pipeline.judge(facts).platform) != host.fingerprint:
            out.outcomes.append(Outcome(host=host.host, state="stale"))
            continue
        ready.append(host)
    work = [h for h in ready if h.changes]
    if work:
        out.outcomes += transact(whom, work, plan.hash, check=check, progress=progress)
    if check:
        out.outcomes.sort(key=lambda o: o.host)
        return out
    done = {o.host for o in out.outcomes if o.state in ("committed", "nothing")}
    needing = [h.host for h in ready if h.reboot and (h.host in done or not h.changes)]
    if reboot and needing:
        answers = reboot_hosts(whom, needing, progress=progress)
        out.outcomes = [_rebooted(o, answers) for o in out.outcomes]
        known = {o.host for o in out.outcomes}
        out.outcomes += [_rebooted(Outcome(host=h, state="nothing"), answers) for h in needing if h not in known]
        needing = [h for h in needing if answers.get(h, "it was not rebooted")]
    out.pending_reboot = needing
    settled = sorted((done | {h.host for h in ready if not h.changes}) - set(needing))
    if settled:
        again = from_hosts(whom, pipeline.targets(), hosts=settled)
        for facts in again.facts:
            judged = pipeline.judge(facts)
            out.verdicts.append(verdict(pipeline.planner, facts, judged.platform, judged.decision))
    out.outcomes.sort(key=lambda o: o.host)
    return out


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
