# SPDX-License-Identifier: Apache-2.0
"""The hosts that there can be, cut up by a policy and the knowledge data: who decides where. Every answer is exact.

A rule decides in the part of its match that no earlier rule takes; a row of knowledge is the platform's row in the
part that no earlier row takes; what policies/knowledge/space.yaml calls impossible is no host. An answer is a witness:
a host that shows it. Where a question is too large :class:`Undecided` is raised, never a guess returned.

What is not modelled: that several features are unknown for one common reason (unreadable symbols). So a part of the
space can be thought possible that is not; the reverse cannot happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property, reduce
from itertools import accumulate
from operator import or_
from typing import Any, cast

from orchestrator.crashkernel import format_size
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy.axes import YES, Axes
from orchestrator.policy.boxes import Box, Cover, Undecided, meet
from orchestrator.policy.context import Cell
from orchestrator.policy.load import Override, Rule
from orchestrator.policy.match import compile_match
from orchestrator.policy.worlds import World, world

__all__ = ["ARCHES", "HYPERVISORS", "Place", "Space", "Undecided", "Witness", "cells"]

Match = Mapping[str, Any]
Place = Rule | Override


class Witness:
    """A host that shows something. ``values`` has every field that the matches look at; ``text`` what matters of it."""

    def __init__(self, space: Space, box: Box, point: Box, against: int) -> None:
        self._space, self._box, self.point, self._against = space, box, point, against

    @cached_property
    def _host(self) -> Box:
        """As ordinary a host as is easily found: whoever reads the example thinks of such a one first."""
        try:
            return self._space._cover.ordinary(self._box, self._against) or self.point
        except Undecided:
            return self.point

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """Values by field; ``feature:NAME`` for features."""
        return self._space.axes.point(self._host)

    @cached_property
    def text(self) -> str:
        """What was asked for, and what keeps the host from those who come first."""
        space = self._space
        shown = {*self._box, *space._cover.reasons(self._box, self._host, self._against & ~space._impossible)}
        shown |= {space.axes.index[f] for f in _ALWAYS if f in space.axes.index}
        return _text(space.axes, shown, self._box, self._host, self.values)

    def cell(self) -> Cell:
        """The host as something that a compiled match can be asked about."""
        return Cell(self.values)

    def __str__(self) -> str:
        return self.text


class Space:
    """Rules in their order and the knowledge data over one set of axes. ``also``: further matches to ask about."""

    def __init__(
        self, rules: Sequence[Place], knowledge: Knowledge, also: Iterable[Match] = (), known: World | None = None
    ) -> None:
        # Overrides may stand for rules where only the match matters; whoever reads strategies puts rules in.
        self.rules = cast(tuple[Rule, ...], tuple(rules))
        self.knowledge = knowledge
        self._also = [*also]
        self._world = known = known or world()
        rows = [row.data["match"] for row in knowledge.rows]
        matches = [*(r.source for r in self.rules), *rows, *(m for m, _ in known.impossible), *self._also]
        self.axes = Axes(matches, known)
        self.unclear: dict[str, str] = {}  # rules that could not be turned into boxes, and why
        self._index = {rule.id: n for n, rule in enumerate(self.rules)}
        impossible = [(self.axes.boxes(m), why) for m, why in known.impossible] + self.axes.ties()
        self._rules = [self._boxes_of(rule) for rule in self.rules]
        self._rows = [self.axes.boxes(match) for match in rows]
        asked = [(match, boxes) for match in self._also if (boxes := self._boxes_or_none(match)) is not None]
        groups = [boxes for boxes, _ in impossible] + self._rows + self._rules + [b for _, b in asked]
        self._row_axes = {axis for boxes in self._rows for box in boxes for axis in box}
        self._cover = Cover(
            [len(axis.values) for axis in self.axes.axes],
            [box for boxes in groups for box in boxes],
            self.axes.consistent,
            self.axes.groups,
        )
        masks, start = [], 0
        for boxes in groups:
            masks.append(((1 << len(boxes)) - 1) << start)
            start += len(boxes)
        first, second = len(impossible), len(impossible) + len(rows)
        third = second + len(self._rules)
        self._why = [(mask, why) for mask, (_, why) in zip(masks[:first], impossible, strict=True)]
        self._impossible = _join(masks[:first])
        self._row_masks, self._rule_masks = masks[first:second], masks[second:third]
        self._known = {_key(match): mask for match, mask in zip((m for m, _ in asked), masks[third:], strict=True)}
        # What rule number n cannot decide: the impossible, and everything that earlier rules take.
        self._before = list(accumulate(self._rule_masks, or_, initial=self._impossible))
        self._closed = [[self.axes.close(box) for box in boxes] for boxes in self._rules]
        self._refusing: dict[int, list[Box]] = {}
        self._reach: dict[int, Witness | None] = {}
        self._rows_in_reach: dict[str, list[tuple[Row, Witness]]] = {}

    def _boxes_or_none(self, match: Match) -> list[Box] | None:
        """Boxes of a match to ask about; ``None`` (and :class:`Undecided` when it is asked about) if it is too large."""
        try:
            return self.axes.boxes(match)
        except Undecided:
            return None

    def _boxes_of(self, rule: Place) -> list[Box]:
        try:
            return self.axes.boxes(rule.source)
        except Undecided as e:
            self.unclear[rule.id] = str(e)
            return []

    # ------------------------------------------------------------------ questions

    def reach(self, rule: Place, within: Match | None = None) -> Witness | None:
        """A host for which ``rule`` decides (and for which ``within`` certainly holds), or ``None``."""
        space, clip = self._clip(within)
        n = space._index[rule.id]
        if within:
            return space._first(_each(space._closed[n], clip), space._before[n])
        if n not in self._reach:
            self._reach[n] = self._first(self._closed[n], self._before[n])
        return self._reach[n]

    def reach_outside(self, rule: Place, match: Match) -> Witness | None:
        """A host for which ``rule`` decides and ``match`` does not certainly hold, or ``None``."""
        space = self if _key(match) in self._known else self._with(match)
        n, mask = space._index[rule.id], space._known.get(_key(match))
        if mask is None:
            raise Undecided("the match that was asked about has too many alternatives")
        return space._first(space._closed[n], space._before[n] | mask)

    def possible(self, rule: Place) -> Witness | None:
        """A host that the rule's match certainly takes, whatever stands before it, or ``None``."""
        return self._first(self._closed[self._index[rule.id]], self._impossible)

    def obstacles(self, rule: Place) -> list[str]:
        """Why no host of the rule's match can be: the reasons that are enough for it."""
        core = self._core(self._closed[self._index[rule.id]], self._impossible)
        return [why for mask, why in self._why if mask & core]

    def takers(self, rule: Place) -> list[Rule]:
        """Earlier rules that take all hosts of a rule that decides nowhere: enough of them, not all that could."""
        n = self._index[rule.id]
        core = self._core(self._closed[n], self._before[n])
        return [r for r, mask in zip(self.rules[:n], self._rule_masks, strict=False) if mask & core]

    def _core(self, boxes: Iterable[Box], against: int) -> int:
        """Some of ``against`` that cover, between them, all of those ``boxes`` that are covered."""
        core = 0
        for box in boxes:
            if self._cover.outside(box, against) is None:
                core |= sum(1 << number for number in self._cover.core)
        return core

    def rows(self, rule: Place, asked: Callable[[Row], bool] | None = None) -> Iterator[tuple[Row, Witness]]:
        """Every row of knowledge that is the platform's row of some host for which ``rule`` decides, found one by one.

        ``asked`` is told each row before it is looked for, and leaves out the ones that do not matter.
        """
        known = self._rows_in_reach.get(rule.id)
        return iter(known) if known is not None else self._rows_of(self._index[rule.id], [{}], asked)

    def rows_in_reach(self, rule: Place) -> list[tuple[Row, Witness]]:
        """All of them."""
        if rule.id not in self._rows_in_reach:
            self._rows_in_reach[rule.id] = list(self.rows(rule))
        return self._rows_in_reach[rule.id]

    def families_in_reach(self, rule: Place) -> list[tuple[str, Witness]]:
        """Every family of distributions that some host for which ``rule`` decides belongs to."""
        return self.words_in_reach(rule, "family")

    def words_in_reach(self, rule: Place, field: str) -> list[tuple[str, Witness]]:
        """The same for any field of words whose words are all known (schema, space.yaml)."""
        found = ((word, self.reach(rule, {field: word})) for word in self.axes.world.words[field])
        return [(word, witness) for word, witness in found if witness is not None]

    def pairs(self, fixed: Match) -> list[tuple[Rule, Row, Witness]]:
        """Every rule and row of knowledge that decide together for some host for which the match ``fixed`` holds."""
        space, clip = self._clip(fixed)
        return [(rule, row, w) for n, rule in enumerate(space.rules) for row, w in space._rows_of(n, clip)]

    def crossing(self, first: int, second: int) -> Witness | None:
        """A host that rule number ``first`` decides and the later rule ``second`` would take too, if other hosts of the
        first rule certainly are not the second one's; ``None`` otherwise (so where one is an exception of the other).
        """
        against = self._before[first]
        shared = self._first(_each(self._closed[first], self._rules[second]), against)
        if shared is None:
            return None
        if second not in self._refusing:
            self._refusing[second] = self.axes.boxes(self.rules[second].source, False)
        return shared if self._first(_each(self._closed[first], self._refusing[second]), against) else None

    def boxes_of(self, n: int) -> list[Box]:
        """The match of rule number ``n`` as a union of boxes over :attr:`axes`."""
        return self._rules[n]

    def touch(self, first: int, second: int) -> bool:
        """A quick sign that two rules may share hosts."""
        mask = self._rule_masks[second]
        return any(self._cover.touching(box, mask) for box in self._closed[first])

    # ------------------------------------------------------------------ answers

    def _with(self, match: Match) -> Space:
        """A space that tells apart what this match tells apart."""
        return Space(self.rules, self.knowledge, [*self._also, match], self._world)

    def _clip(self, match: Match | None) -> tuple[Space, list[Box]]:
        """The boxes of a match from outside, in a space that tells its literals apart."""
        if not match:
            return self, [{}]
        closed = all(k in self.axes.world.words and k in self.axes.index for k in match)
        space = self if closed or _key(match) in self._known else self._with(match)
        return space, space.axes.boxes(match)

    def _first(self, boxes: Iterable[Box], against: int, hints: Sequence[Box] = ()) -> Witness | None:
        for box in boxes:
            point = self._cover.outside(box, against, hints)
            if point is not None:
                return Witness(self, box, point, against)
        return None

    def _rows_of(
        self, n: int, clip: list[Box], asked: Callable[[Row], bool] | None = None
    ) -> Iterator[tuple[Row, Witness]]:
        boxes = list(_each(self._closed[n], clip))
        against = self._before[n]
        start = self._first(boxes, against)
        if start is None:
            return
        # Try a row's ordinary host, with what keeps the rule's own example from earlier rules.
        mine = {a: (m & -m).bit_length() - 1 for a, m in start.point.items() if a not in self._row_axes}
        for row, own, mask, hint in zip(self.knowledge.rows, self._rows, self._row_masks, self._hints, strict=True):
            if asked is None or asked(row):
                witness = self._first(_each(boxes, own), against, (hint | mine, mine | hint))
                if witness is not None:
                    yield row, witness
            against |= mask

    @cached_property
    def _hints(self) -> list[Box]:
        """For each row of knowledge an ordinary host of it, as numbers of classes: most rules take that one too."""
        out, against = [], self._impossible
        for boxes, mask in zip(self._rows, self._row_masks, strict=True):
            found = (self._cover.ordinary(box, against) for box in boxes)
            point: Box = next((p for p in found if p is not None), {})
            out.append({axis: (m & -m).bit_length() - 1 for axis, m in point.items()})
            against |= mask
        return out


def _text(axes: Axes, shown: set[int], asked: Box, point: Box, values: Mapping[str, Any]) -> str:
    words: dict[str, list[str]] = {}
    for number in sorted(shown):
        axis, chosen = axes.axes[number], point.get(number, axes.full[number])
        if axis.member:
            if chosen == YES:  # what a host merely has not is left out
                new = axis.member if axis.field in ("groups", "tags", "drivers") else str(values[axis.field])
                words[axis.field] = list(dict.fromkeys([*words.get(axis.field, []), new]))
        elif axis.field == "drivers" and values["drivers"] is not None:
            continue
        elif values[axis.field] not in _NOTHING or number in asked or axis.field == "hypervisor":
            words[axis.field] = [_show(axis.field, values[axis.field])]
    order = sorted(words, key=lambda f: (_ORDER.index(f) if f in _ORDER else 99, f))
    return ", ".join(_say(field, words[field]) for field in order) or "any host"


_ALWAYS = ("arch", "hypervisor", "role")
_NOTHING = ("", "none", False)
_ORDER = ["arch", "hypervisor", "role", "variant", "confidential"]


def _show(field: str, value: Any) -> str:
    if value is None:
        return "cannot be told"
    if field == "memory":
        return format_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value else "none"


def _say(field: str, words: list[str]) -> str:
    if field in ("groups", "tags", "drivers") and words != ["cannot be told"]:
        return f"{field} {{{', '.join(sorted(words))}}}"
    name = field.removeprefix("feature:") if field.startswith("feature:") else field
    if field.startswith("feature:") or field in ("ambiguous", "paravisor"):
        return {"yes": name, "no": f"not {name}"}.get(words[0], f"{name} {words[0]}")
    return f"{name.replace('_', ' ')} {words[0]}"


def _key(match: Match) -> str:
    return repr(match)


def _join(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)


def _each(boxes: Iterable[Box], others: Sequence[Box]) -> Iterator[Box]:
    """Every box of one union cut with every box of another."""
    return (m for a in boxes for b in others if (m := meet(a, b)) is not None)


# ---------------------------------------------------------------------- platforms as a list


ARCHES = world().listed["arch"]
HYPERVISORS = world().listed["hypervisor"]


@cache
def cells() -> tuple[Cell, ...]:
    """Every platform that can be, as arch × hypervisor × role × … without what is impossible; other fields are open."""
    known = world()
    ruled_out = [compile_match(match, known.features) for match, _ in known.impossible]
    out: list[dict[str, Any]] = [{}]
    fields = ("hypervisor", "role", "confidential", "variant", "confidential_host")
    choices: list[tuple[str, tuple[Any, ...]]] = [("arch", ARCHES), *((f, known.words[f]) for f in fields)]
    for field, values in [*choices, ("ambiguous", (False, True))]:
        grown = [{**values_so_far, field: value} for values_so_far in out for value in values]
        out = [c for c in grown if not any(m.test(Cell(c)) is True for m in ruled_out)]
    return tuple(Cell(values) for values in out)
