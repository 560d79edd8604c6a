# SPDX-License-Identifier: Apache-2.0
"""What a policy says, held against all hosts that there can be: rules that never apply, orders that nobody can follow.

Every finding is exact over the space of space.py and names a host that shows it. What is too large to be decided is
said to be so (P042). Errors stop ``kdo plan``; warnings and notes are for ``kdo policy lint``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from orchestrator.documents.decision import LAYERS
from orchestrator.errors import PolicyError, Problem
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy.lint_settings import settings_problems
from orchestrator.policy.load import Policy, Rule
from orchestrator.policy.space import ARCHES, HYPERVISORS, Space, Undecided, Witness, cells

__all__ = ["ARCHES", "HYPERVISORS", "cells", "lint", "require_sound", "space_of"]

MAX_NOTES = 20  # crossing rules that are told one by one
MAX_PAIRS = 1500  # and pairs that are looked at for that
_A = LAYERS[0]


def space_of(policy: Policy, knowledge: Knowledge) -> Space:
    """The space that tells apart all that the policy and the knowledge data tell apart."""
    also = [o.source for o in policy.overrides] + [limit.source for limit in knowledge.limits]
    return Space(policy.rules, knowledge, also)


def lint(policy: Policy, knowledge: Knowledge) -> list[Problem]:
    """Everything that is wrong or doubtful with a policy whose text is valid."""
    space = space_of(policy, knowledge)
    return [*_rules(space, thorough=True), *settings_problems(policy, space, knowledge), *_crossings(space)]


def require_sound(policy: Policy, knowledge: Knowledge) -> None:
    """Raise :class:`PolicyError` for every error (warnings and notes are for ``kdo policy lint``)."""
    space = space_of(policy, knowledge)
    found = [*_rules(space, thorough=False), *settings_problems(policy, space, knowledge, thorough=False)]
    errors = [p for p in found if p.severity == "error"]
    if errors:
        raise PolicyError(errors)


def _rules(space: Space, thorough: bool) -> Iterator[Problem]:
    for rule in space.rules:
        if rule.id in space.unclear:
            why = f"{space.unclear[rule.id]}; later rules are judged as if it took no host"
            yield _undecided(rule, why)
            continue
        try:
            # Reach first: who decides nowhere needs no other question.
            if space.reach(rule) is None:
                yield _unreachable(space, rule)
            elif rule.strategy:
                yield from _strategy(space, rule, thorough)
        except Undecided as e:
            yield _undecided(rule, str(e))


def _undecided(rule: Rule, why: str) -> Problem:
    what = f"it could not be decided where rule {rule.id!r} applies"
    return Problem(
        what, rule.at("match"), why, "make its match simpler, or make several rules of it", "P042", "warning"
    )


# ---------------------------------------------------------------------- P020, P021, P022: rules that never apply


def _unreachable(space: Space, rule: Rule) -> Problem:
    where = rule.at("match")
    if space.possible(rule) is None:
        why = "; ".join(dict.fromkeys(space.obstacles(rule))) or "its clauses contradict each other"
        return Problem(f"rule {rule.id!r} can never match", where, f"no host is like that: {why}", "mend or remove it", "P020")  # fmt: skip
    takers = space.takers(rule)
    names = ", ".join(f"{r.id!r} ({r.where})" for r in takers)
    if rule is space.rules[-1]:
        why = f"earlier rules take every host: {names}"
        return Problem("the default can never apply", where, why, "that may be wanted", "P022", "warning")
    other = any(_outcome(r) != _outcome(rule) or r.refuse != rule.refuse for r in takers)
    clash = " and decide otherwise: the two contradict each other" if other else ""
    why = f"earlier rules take all of its hosts{clash}: {names}"
    if all(r.file is not rule.file for r in takers):
        fix = "nothing, if that is why the other file extends this one"
        return Problem(f"the inherited rule {rule.id!r} never applies", where, why, fix, "P021", "note")
    fix = "move it up, narrow the others, or remove it"
    return Problem(f"rule {rule.id!r} never applies", where, why, fix, "P021")


# ---------------------------------------------------------------------- P030 … P032, P040: orders nobody can follow


def _impossible(row: Row, strategy: str, unproven: bool) -> str:
    """Why a strategy can never work on a row's platform; empty when it can."""
    if "refuse" in row.data:
        return str(row.data["refuse"]["why"])
    layer = row.data["layers"][strategy]
    if layer["state"] in ("absent", "forbidden", "supplement") or (layer["state"] == "unproven" and not unproven):
        state = "not enough alone" if layer["state"] == "supplement" else layer["state"]
        return f"{row.data['title']}: {strategy} is {state}: {layer['why']}"
    return ""


def _served(rule: Rule, row: Row, unproven: bool) -> bool:
    return not all(_impossible(row, s, unproven) for s in rule.strategy)


def _strategy(space: Space, rule: Rule, thorough: bool) -> Iterator[Problem]:
    """A rule none of whose layers can work anywhere it applies is an error; one dead entry of the list a warning."""
    unproven = bool(rule.settings.get("allow_unproven", False))
    wish = rule.settings.get("post_notifiers")
    if wish not in ("on", "off"):
        # One platform that the rule can serve means that there is no error: `kdo plan` need not see the others, and
        # lint only those that tell something new.
        if not thorough and any(_served(rule, row, unproven) for row, _ in space.rows(rule)):
            return
        if thorough and (telling := _telling(space, rule, unproven)) is not None:
            useless, unserved = telling
            for s, why in useless.items():
                yield _useless(rule, s, why)
            yield from _gaps(rule, unserved, unproven)
            return
    reach = space.rows_in_reach(rule)
    rows = [row for row, _ in reach]
    usable = [row for row in rows if "refuse" not in row.data]
    reasons = {s: [_impossible(row, s, unproven) for row in usable or rows] for s in rule.strategy}
    dead = [s for s in rule.strategy if all(reasons[s])]
    if len(dead) == len(rule.strategy):
        yield _nobody_can(space.knowledge, rule, dead, reasons, usable, rows, unproven)
        return
    states = {row.data["layers"][_A]["state"] for row in usable}
    if (wish == "on" and states == {"forbidden"}) or (wish == "off" and states == {"required"}):
        what = f"rule {rule.id!r} sets post_notifiers: {wish} where it must not be"
        yield Problem(what, rule.at("strategy"), usable[0].data["layers"][_A]["why"], "remove it", "P031")
        return
    for s in dead:
        yield _useless(rule, s, reasons[s][0])
    if thorough:
        yield from _gaps(rule, reach, unproven)


def _useless(rule: Rule, strategy: str, why: str) -> Problem:
    where = rule.at("strategy", rule.strategy.index(strategy))
    return Problem(f"rule {rule.id!r}: {strategy} can never be taken", where, why, "remove it", "P032", "warning")


def _telling(space: Space, rule: Rule, unproven: bool) -> tuple[dict[str, str], list[tuple[Row, Witness]]] | None:
    """Strategies that no row in reach can do (with why), and the rows in reach that the rule does not serve.

    ``None`` when it can serve nobody: that is another problem, which names them all.
    """
    possible = {row.id: [s for s in rule.strategy if not _impossible(row, s, unproven)] for row in space.knowledge.rows}
    alive: set[str] = set()

    def asked(row: Row) -> bool:
        return not possible[row.id] or not alive.issuperset(possible[row.id])

    unserved: list[tuple[Row, Witness]] = []
    for row, witness in space.rows(rule, asked):
        alive.update(possible[row.id])
        if not possible[row.id]:
            unserved.append((row, witness))
    if not alive:
        return None
    dead = [s for s in rule.strategy if s not in alive]
    if not dead:
        return {}, unserved
    usable = [row for row, _ in space.rows_in_reach(rule) if "refuse" not in row.data]
    return {s: _impossible(usable[0], s, unproven) for s in dead}, unserved


def _nobody_can(
    knowledge: Knowledge,
    rule: Rule,
    dead: list[str],
    reasons: dict[str, list[str]],
    usable: list[Row],
    rows: list[Row],
    unproven: bool,
) -> Problem:
    why = "; ".join(dict.fromkeys(reasons[s][0] for s in dead))
    first = (usable or rows)[0].data.get("layers", {})
    sources = sorted({s for name in dead for s in first.get(name, {}).get("sources", [])})
    cited = "; ".join(knowledge.sources[s].title for s in sources)
    works = [s for s in LAYERS if not all(_impossible(row, s, unproven) for row in usable)]
    fix = f"use {' or '.join(works)}" if works else "use refuse: these hosts cannot kdump"
    what = f"rule {rule.id!r} orders what none of its platforms can do"
    return Problem(what, rule.at("strategy"), f"{why} (source: {cited or 'the knowledge data'})", fix, "P030")


def _gaps(rule: Rule, reach: list[tuple[Row, Witness]], unproven: bool) -> Iterator[Problem]:
    """Platforms in reach that have a layer that works, of which the rule names none: their hosts get a refusal."""
    found: list[tuple[Row, Witness, list[str]]] = []
    for row, witness in reach:
        if not _served(rule, row, unproven):
            works = [s for s in LAYERS if not _impossible(row, s, unproven)]
            if works:
                found.append((row, witness, works))
    if not found:
        return
    many = f"{len(found)} platforms" if len(found) > 1 else f"{found[0][0].id} ({found[0][0].data['title']})"
    shown = [
        f"{row.id} is {_impossible(row, rule.strategy[0], unproven)}" + ("" if n else f" (e.g. {witness})")
        for n, (row, witness, _) in enumerate(found[:3])
    ]
    shown += [f"… and {len(found) - 3} more"] if len(found) > 3 else []
    fixes: dict[str, list[str]] = {}
    for row, _, works in found:
        fixes.setdefault(" or ".join(works), []).append(row.id)
    what_works = "; ".join(f"{works} for {', '.join(ids)}" for works, ids in fixes.items())
    fix = f"allow what works there ({what_works}), or let an earlier rule take such hosts"
    what = f"rule {rule.id!r} takes hosts of {many} and names no layer that is enough there: they are refused"
    yield Problem(what, rule.at("strategy"), "; ".join(shown), fix, "P040", "warning")


# ---------------------------------------------------------------------- P041: the order decides


def _outcome(rule: Rule) -> Any:
    """What a rule does, without the words that it says about it."""
    if rule.refuse:
        return "refuse"
    return rule.strategy, bool(rule.disable), rule.level, rule.settings


def _decides(space: Space, rule: Rule) -> bool:
    try:
        return space.reach(rule) is not None
    except Undecided:
        return False


def _crossings(space: Space) -> Iterator[Problem]:
    """Pairs of rules that share hosts and decide differently, where neither is an exception of the other.

    A refusal that stands first is left out: that is how guards are written, and the careful answer wins. So are rules
    of different files: that one policy comes before another is what `extends` says.
    """
    rules = [n for n, r in enumerate(space.rules[:-1]) if _decides(space, r)]
    pairs = (
        (a, b)
        for i, a in enumerate(rules)
        if not space.rules[a].refuse
        for b in rules[i + 1 :]
        if space.rules[a].file is space.rules[b].file
        and _outcome(space.rules[a]) != _outcome(space.rules[b])
        and space.touch(a, b)
    )
    told = more = 0
    for first, second in islice(pairs, MAX_PAIRS):
        a, b = space.rules[first], space.rules[second]
        try:
            witness = space.crossing(first, second)
        except Undecided:
            continue  # P042 says so where it matters: for a rule's own reach
        if witness is None:
            continue
        if told == MAX_NOTES:
            more += 1
            continue
        told += 1
        what = f"rules {a.id!r} and {b.id!r} share hosts and decide differently: the order decides"
        why = f"{a.id!r} comes first and takes them from {b.id!r} ({b.where}); e.g. {witness}"
        yield Problem(what, a.where, why, "nothing, if that is the order of importance; else swap them", "P041", "note")
    if more:
        least = "at least " if next(pairs, None) else ""
        what = f"… and {least}{more} more pairs of rules share hosts and decide differently"
        yield Problem(what, space.rules[0].where, "only the first are told", "", "P041", "note")
