# SPDX-License-Identifier: Apache-2.0
"""The trace of a decision: every rule in order, every clause with the host's value and the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.documents.decision import RuleTrace

if TYPE_CHECKING:
    from orchestrator.knowledge.load import Knowledge, Row
    from orchestrator.policy.context import Context
    from orchestrator.policy.load import Rule


def trace_rules(
    rules: tuple[Rule, ...], knowledge: Knowledge, chosen: Rule, row: Row, context: Context
) -> list[RuleTrace]:
    """All rules up to and including the chosen one, then the platform's row, then the guards that hold."""
    out = []
    for rule in rules:
        answer = rule.match.test(context)
        out.append(RuleTrace(id=rule.id, where=rule.where, matched=answer, clauses=rule.match.explain(context).parts))
        if rule is chosen:
            break
    out.append(RuleTrace(id=row.id, where=row.where, matched=True, clauses=row.match.explain(context).parts))
    for guard in knowledge.guards:
        if guard.match.test(context) is True:
            out.append(
                RuleTrace(id=guard.id, where=guard.where, matched=True, clauses=guard.match.explain(context).parts)
            )
    return out
