# SPDX-License-Identifier: Apache-2.0
"""Why not the other strategies: for each of them what knowledge says, what the policy says, and what would differ."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.documents.base import to_builtins
from orchestrator.documents.decision import LAYERS, Against, Decision, Difference
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.policy.decide import Decider


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(v) for v in value) or "none"
    return str(value) if value not in (None, "") else "as it is"


def _differences(now: Decision, then: Decision) -> list[Difference]:
    out = [
        Difference(what=f"layer {a.name}", now=a.state, then=b.state)
        for a, b in zip(now.layers, then.layers, strict=True)
        if a.state != b.state
    ]
    before, after = to_builtins(now.settings), to_builtins(then.settings)
    out += [
        Difference(what=k, now=_text(before[k]), then=_text(after[k]))
        for k in before
        if before[k] != after[k] and k != "post_notifiers"
    ]
    return out


def against(decider: Decider, facts: Facts, platform: Platform) -> list[Against]:
    """Every strategy but the chosen one, in the order in which the layers run."""
    now = decider.explained(facts, platform)
    rule = next(r for r in decider.policy.rules if r.id == now.rule)
    out = []
    for name in LAYERS:
        if name == now.strategy:
            continue
        only = replace(rule, strategy=(name,), refuse="", disable="")
        rules = tuple(only if r is rule else r for r in decider.policy.rules)
        then = Decider(replace(decider.policy, rules=rules), decider.knowledge).explained(facts, platform)
        alternative = next((a for a in now.alternatives if a.strategy == name), None)
        listed = name in rule.strategy
        if then.refusals:
            refusal = then.refusals[0]
            why = (
                alternative.why
                if alternative and alternative.verdict not in ("recommended", "accepted")
                else refusal.why
            )
            fix = "" if alternative else refusal.fix
            sources = alternative.sources if alternative else refusal.sources
            out.append(Against(strategy=name, possible=False, listed=listed, why=why, fix=fix, sources=sources))
            continue
        if now.refusals:
            why = f"it would work here, but rule {rule.id!r} does not allow it" if not listed else now.refusals[0].what
        elif listed:
            why = f"rule {rule.id!r} prefers {now.strategy}, which works here"
        else:
            why = f"rule {rule.id!r} does not list it"
        if alternative and alternative.verdict == "accepted":
            why += f"; knowledge accepts it, but recommends another: {alternative.why}"
        fix = f"put {name} first in strategy: at {rule.at('strategy')}"
        sources = alternative.sources if alternative else []
        out.append(
            Against(strategy=name, possible=True, listed=listed, why=why, fix=fix, sources=sources, differences=_differences(now, then))
        )  # fmt: skip
    return out
