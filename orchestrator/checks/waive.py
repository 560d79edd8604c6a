# SPDX-License-Identifier: Apache-2.0
"""Waivers held against verdicts and plans: what is waived is counted apart, what is expired fails again and says so."""

from __future__ import annotations

import msgspec

from orchestrator.checks.run import verdict
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.verdict import Check, Verdict
from orchestrator.planning.pipeline import Judged, Pipeline
from orchestrator.policy.context import Context, Features
from orchestrator.policy.waivers import Waiver, Waivers

#: Verdicts of a check that a waiver can be about.
BAD = ("fail", "unknown", "refused")


def said(waiver: Waiver) -> str:
    """What is said of something that a waiver counts for."""
    return f"waived until {waiver.expires} by {waiver.approver} ({waiver.id}: {waiver.justification})"


def lapsed(waiver: Waiver) -> str:
    """The same of a waiver that has expired."""
    return f"the waiver {waiver.id} of {waiver.approver} has expired on {waiver.expires}"


def waive(found: Verdict, judged: Judged, waivers: Waivers, features: Features) -> Verdict:
    """The verdict with the waivers that apply to this host."""
    context = Context(judged.facts, judged.platform, features)
    checks: list[Check] = []
    for check in found.checks:
        waiver = None
        if check.verdict in BAD:
            # A host that is refused is waived by the id of the refusal, or of the rule that took it.
            rules = [check.id, judged.decision.rule] if check.verdict == "refused" else [judged.decision.rule]
            checked = [] if check.verdict == "refused" else [check.id]  # an id can name a check and a refusal
            waiver = waivers.find(context, checks=checked, rules=rules)
        if waiver is None:
            checks.append(check)
        elif waivers.counts(waiver):
            evidence = f"{said(waiver)}; {check.evidence}"
            checks.append(msgspec.structs.replace(check, verdict="waived", evidence=evidence, fix=""))
        else:
            checks.append(msgspec.structs.replace(check, evidence=f"{check.evidence}; {lapsed(waiver)}"))
    waived = sum(c.verdict == "waived" for c in checks)
    bad = any(c.verdict in ("fail", "unknown") for c in checks)
    status = found.status
    if status in ("fail", "refused"):
        refused = any(c.verdict == "refused" for c in checks)
        status = "refused" if refused else "fail" if bad else "pass"
    return msgspec.structs.replace(found, checks=checks, waived=waived, status=status)


def waive_plan(plan: HostPlan, judged: Judged, waivers: Waivers, features: Features) -> HostPlan:
    """The plan, or a plan that does nothing where a waiver covers the host's rule or its refusals."""
    if plan.status not in ("changes", "refused", "audit"):
        return plan
    context = Context(judged.facts, judged.platform, features)
    refusals = [r.id for r in plan.refusals]
    found = [waivers.find(context, rules=[id, judged.decision.rule]) for id in refusals or [judged.decision.rule]]
    valid = [w for w in found if w is not None and waivers.counts(w)]
    if len(valid) == len(found):
        notes = [*plan.notes, *dict.fromkeys(said(w) for w in valid)]
        return msgspec.structs.replace(
            plan, status="waived", action="none", changes=[], expect=[], reboot=False, reboot_why="", notes=notes
        )
    over = [lapsed(w) for w in found if w is not None and not waivers.counts(w)]
    return msgspec.structs.replace(plan, notes=[*plan.notes, *dict.fromkeys(over)]) if over else plan


def plan_judged(pipeline: Pipeline, judged: Judged, waivers: Waivers) -> HostPlan:
    """The plan of a host that was judged already, with the waivers that apply to it."""
    plan = pipeline.planner.plan_host(judged.facts, judged.platform, judged.decision)
    return waive_plan(plan, judged, waivers, pipeline.decider.knowledge.features) if waivers.all else plan


def verdict_judged(pipeline: Pipeline, judged: Judged, waivers: Waivers | None) -> Verdict:
    """The verdict on a host that was judged already, with the waivers that apply to it."""
    found = verdict(pipeline.planner, judged.facts, judged.platform, judged.decision)
    return waive(found, judged, waivers, pipeline.decider.knowledge.features) if waivers is not None else found


def plan_host(pipeline: Pipeline, facts: Facts, waivers: Waivers) -> HostPlan:
    """The plan of one host, with the waivers that apply to it."""
    return plan_judged(pipeline, pipeline.judge(facts), waivers)


def judge_host(pipeline: Pipeline, facts: Facts, waivers: Waivers | None) -> Verdict:
    """The verdict on one host, with the waivers that apply to it."""
    return verdict_judged(pipeline, pipeline.judge(facts), waivers)
