# SPDX-License-Identifier: Apache-2.0
"""Settings that hosts in reach cannot honour, and overrides that match nobody; by the same exact reasoning as the rules."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.errors import Problem
from orchestrator.knowledge.load import Knowledge
from orchestrator.policy.limits import Limit, asked
from orchestrator.policy.load import Override, Policy, Rule
from orchestrator.policy.space import Place, Space, Undecided, Witness


def settings_problems(policy: Policy, space: Space, knowledge: Knowledge, thorough: bool = True) -> list[Problem]:
    """P023 for overrides without hosts, P033 for wishes that no host in reach can meet, P034 (a note) for some hosts.

    Without ``thorough`` the errors alone.
    """
    problems: list[Problem] = []
    partly: dict[str, list[tuple[Place, Witness]]] = {}
    limits = {limit.id: limit for limit in knowledge.limits}
    for place, own in _places(policy, space, knowledge):
        name = f"{'rule' if isinstance(place, Rule) else 'override'} {place.id!r}"
        try:
            if isinstance(place, Override) and own.possible(place) is None:
                why = "; ".join(own.obstacles(place)) or "its clauses contradict each other"
                problems.append(Problem(f"{name} never applies", place.at("match"), why, "mend or remove it", "P023"))
                continue
            for limit in asked(knowledge.limits, place.settings):
                if own.reach_outside(place, limit.source) is None:
                    problems.append(_never(name, place, limit, knowledge))
                elif thorough and (witness := own.reach(place, limit.source)) is not None:
                    partly.setdefault(limit.id, []).append((place, witness))
        except Undecided as e:
            what = f"whether all hosts of {name} can honour its settings could not be decided"
            problems.append(Problem(what, place.where, str(e), "simplify its match", "P042", "warning"))
    problems += [_some(limits[id], found) for id, found in partly.items()]
    return problems


def _places(policy: Policy, space: Space, knowledge: Knowledge) -> Iterable[tuple[Place, Space]]:
    for rule in policy.rules:
        if rule.strategy and rule.id not in space.unclear and space.reach(rule) is not None:
            yield rule, space
    also = [limit.source for limit in knowledge.limits]
    for override in policy.overrides:
        yield override, Space((override,), knowledge, also)


def _never(name: str, place: Place, limit: Limit, knowledge: Knowledge) -> Problem:
    sources = "; ".join(s.title for s in knowledge.cite(limit.sources))
    what = f"{name} asks for {limit.setting}, which none of its hosts can do"
    return Problem(what, place.at("settings"), f"{limit.why} (source: {sources})", limit.fix, "P033")


def _some(limit: Limit, found: list[tuple[Place, Witness]]) -> Problem:
    place, witness = found[0]
    names = ", ".join(repr(p.id) for p, _ in found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    what = f"{limit.setting} of {names} is refused on some of the hosts"
    return Problem(what, place.where, f"{limit.why}; e.g. {witness}", limit.fix, "P034", "note")
