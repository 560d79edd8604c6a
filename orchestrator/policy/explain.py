# SPDX-License-Identifier: Apache-2.0
"""The trace of a decision: every rule in order, every clause with the host's value and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.documents.decision import RuleTrace

if TYPE_CHECKING:
    from orchestrator.knowledge.load import Knowledge, Row
    from orchestrator.policy.context import Context
    from orchestrator.policy.load import Override, Policy, Rule


def _trace(entry: Rule | Override | Row, context: Context) -> RuleTrace:
    answer = entry.match.test(context)
    return RuleTrace(id=entry.id, where=entry.where, matched=answer, clauses=entry.match.explain(context).parts)


def trace_rules(policy: Policy, knowledge: Knowledge, context: Context) -> list[RuleTrace]:
    """All rules up to and including the chosen one, all overrides, the platform's row, then the guards that hold."""
    out = []
    for rule in policy.rules:
        out.append(_trace(rule, context))
        if out[-1].matched is True:
            break
    out += [_trace(o, context) for o in policy.overrides]
    out.append(_trace(next(r for r in knowledge.rows if r.match.test(context) is True), context))
    out += [_trace(g, context) for g in knowledge.guards if g.match.test(context) is True]
    return out
