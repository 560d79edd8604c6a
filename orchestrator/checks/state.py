# SPDX-License-Identifier: Apache-2.0
"""The state of a host, from its plan and its verdict. Pure: the same documents give the same state."""

from __future__ import annotations

from orchestrator.documents.plan import HostPlan
from orchestrator.documents.verdict import Verdict


def state_of(plan: HostPlan, verdict: Verdict) -> tuple[str, str]:
    """State of a host that answered, and the reason in one line."""
    if plan.status == "unsupported":
        return "unsupported", next((r.why or r.what for r in plan.refusals), "")
    if plan.status == "refused":
        return "refused", "; ".join(f"{r.what} [{r.id}]" for r in plan.refusals)[:500]
    if plan.status == "waived" or (verdict.waived and verdict.status == "pass"):
        return "waived", next((n for n in plan.notes if n.startswith("waived")), _waived(verdict))
    if plan.status == "audit" or (plan.status == "changes" and plan.changes):
        aside = " (the policy does not enforce here)" if plan.status == "audit" else ""
        return "drift", ("; ".join(c.what for c in plan.changes) or "it is not as the policy wants it")[:500] + aside
    if plan.reboot:
        return "pending reboot", plan.reboot_why
    if verdict.status == "fail":
        bad = [f"{c.id}: {c.evidence}" for c in verdict.checks if c.verdict in ("fail", "unknown")]
        return "failed", "; ".join(bad)[:500]
    return "compliant", ""


def _waived(verdict: Verdict) -> str:
    return "; ".join(c.evidence for c in verdict.checks if c.verdict == "waived")[:500]
