# SPDX-License-Identifier: Apache-2.0
"""What one look at a host, or one change of it, says of its state. Pure: the same documents give the same state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.checks.state import state_of
from orchestrator.checks.waive import plan_judged, verdict_judged
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.proof import Proof
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.fleet.collect import HostProblem
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.waivers import Waivers
from orchestrator.proof.standing import standing
from orchestrator.store.hosts import Document, Seen, with_proof

#: What a run says of a host that it wanted to change, where that is not the host's state afterwards.
GOOD = (
    "changed",
    "compliant",
    "nothing",
    "pending reboot",
    "waived",
    "proof expired",
    "drift",
    "refused",
    "unsupported",
)


def looked(
    pipeline: Pipeline, waivers: Waivers, facts: Facts, proofs: Mapping[str, Sequence[Proof]] | None = None
) -> Seen:
    """A host that answered, with its documents: facts, plan and verdict."""
    judged = pipeline.judge(facts)
    plan = plan_judged(pipeline, judged, waivers)
    verdict = verdict_judged(pipeline, judged, waivers)
    state, why = state_of(plan, verdict)
    seen = Seen(
        facts.host, state, why, arch=judged.platform.arch, hypervisor=judged.platform.hypervisor, platform=plan.platform,
        strategy=plan.strategy, rule=plan.rule, kernel=facts.kernel.release, desired=verdict.state,
        tags=tuple(facts.inventory.tags), policy_hash=pipeline.policy.hash,
        documents={"facts": Document.of("facts", facts), "plan": Document.of("plan", plan),
                   "verdict": Document.of("verdict", verdict)},
        waivers=used_waivers(verdict, plan, waivers),
    )  # fmt: skip
    if proofs is None or verdict.status not in ("pass", "fail") or not verdict.state:
        return seen
    return with_proof(seen, standing(proofs.get(facts.host, ()), verdict.state, verdict.kernel))


def used_waivers(verdict: Verdict, plan: HostPlan, waivers: Waivers) -> list[tuple[str, str, str, str]]:
    """The waivers that counted for this host: id, what it is about, approver, last day."""
    waived = {c.id for c in verdict.checks if c.verdict == "waived"}
    out = []
    for w in waivers.all:
        about = w.check or w.rule or w.control
        said = any(f"({w.id}:" in n for n in plan.notes) or any(f"({w.id}:" in c.evidence for c in verdict.checks)
        if said or (about in waived and waivers.counts(w)):
            out.append((w.id, about, w.approver, str(w.expires)))
    return out


def no_answer(problem: HostProblem) -> Seen:
    """A host that could not be asked."""
    state = "unreachable" if problem.status == "unreachable" else "failed"
    why = f"{problem.what}: {problem.why}" if problem.why else problem.what
    return Seen(problem.host, state, why[:500], answered=False)


def after(outcome: Outcome, seen: Seen | None, *, pending: bool, held: str = "") -> Seen:
    """A host that was to be changed: ``seen`` is what a look afterwards gave, if there was one."""
    documents = {"outcome": Document.of("outcome", outcome)}
    if seen is not None and outcome.state in ("committed", "nothing"):
        result = "changed" if outcome.changed and seen.state in ("compliant", "proof expired") else seen.state
        state = "changed" if result == "changed" and seen.state == "compliant" else seen.state
        return _with(seen, state, seen.why, result, documents)
    why = "; ".join(v for k, v in (outcome.error or {}).items() if k != "fix" and v)
    if outcome.state in ("committed", "nothing"):
        state = "pending reboot" if pending else "changed" if outcome.changed else "compliant"
        return Seen(outcome.host, state, held or "everything is set, and in force after its next reboot" if pending else "",
                    answered=False, documents=documents)  # fmt: skip
    if outcome.state == "unreachable":
        return Seen(outcome.host, "unreachable", why, answered=False, documents=documents)
    if outcome.state == "stale":
        why = "the host has changed since the plan was made"
        return Seen(outcome.host, "drift", why, answered=False, result="stale", documents=documents)
    state = "drift" if outcome.state in ("undone", "refused") else "failed"
    # A host that refuses its transaction is another thing than one that policy or knowledge refuse to change.
    result = "transaction refused" if outcome.state == "refused" else outcome.state
    return Seen(outcome.host, state, f"{result}: {why}"[:500], answered=False, result=result, documents=documents)


def _with(seen: Seen, state: str, why: str, result: str, documents: Mapping[str, Document]) -> Seen:
    return replace(seen, state=state, why=why, result=result, documents={**seen.documents, **documents})
