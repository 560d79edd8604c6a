# SPDX-License-Identifier: Apache-2.0
"""Matches as boxes: which values of each field the literals of all matches tell apart, and each match as a union.

A field of one value (a word, a version, memory, a feature) is one axis; its classes are values that stand for all
others of their kind, and what a leaf says of a class is asked of the compiled leaf itself. A set is one yes-or-no axis
per member that is mentioned, a name one per pattern. What cannot be told is a class of its own that makes a leaf
neither true nor false, so a match has a set of points where it is true and another where it is false.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.crashkernel import parse_size
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.policy import globs
from orchestrator.policy.boxes import Box, Undecided, bits, cross, union
from orchestrator.policy.context import FIELDS, Cell, getter
from orchestrator.policy.match import Matcher, compile_match
from orchestrator.policy.worlds import World
from orchestrator.versions import Version, at_least

_SETS = ("groups", "tags", "drivers")
_GLOBS = ("product", "host")
_BOOLS = ("ambiguous", "paravisor", "target_encrypted")
_NUMBERS = ("cpus", "target_room")
_VERSIONS = ("kernel", "distribution_version")
NO, YES = 1, 2  # masks of an axis with the classes (no, yes)


def can_be_unknown(field: str) -> bool:
    """Whether there are hosts of which this field cannot be told: those that say nothing at all."""
    return field not in FIELDS or getter(field, {})(Facts(), Platform()) is None


def _as_list(wanted: Any) -> list[Any]:
    return list(wanted) if isinstance(wanted, list) else [wanted]


def _spec(wanted: Any, plain: str) -> dict[str, list[str]]:
    """The long form of a clause about a set; ``plain`` is what a list means."""
    if isinstance(wanted, Mapping):
        return {kind: list(wanted.get(kind, ())) for kind in ("all", "any", "none")}
    return {"all": [], "any": [], "none": [], plain: _as_list(wanted)}


def _literals(match: Mapping[str, Any], out: dict[str, list[Any]]) -> None:
    for field, wanted in match.items():
        if field in ("any", "all"):
            for part in wanted:
                _literals(part, out)
        elif field == "not":
            _literals(wanted, out)
        elif field in (*_SETS, "features"):
            for names in _spec(wanted, "any").values():
                out.setdefault(field, []).extend(names)
            out.setdefault(field, [])
        elif isinstance(wanted, Mapping):
            out.setdefault(field, []).extend(wanted.values())
        else:
            out.setdefault(field, []).extend(_as_list(wanted))


@dataclass(frozen=True)
class Axis:
    """One axis: the values that stand for its classes, the one that examples prefer first."""

    name: str
    field: str
    values: tuple[Any, ...]
    member: str = ""  # the set's member or the pattern


class Axes:
    """The axes that tell apart what ``matches`` tell apart."""

    def __init__(self, matches: Iterable[Mapping[str, Any]], world: World) -> None:
        self.world = world
        literals: dict[str, list[Any]] = {}
        for match in matches:
            _literals(match, literals)
        for feature in literals.get("features", ()):
            literals.setdefault("kernel", []).extend(world.kernel_of(feature))
        for field in world.words:
            literals.setdefault(field, [])
        self.axes: list[Axis] = []
        self.index: dict[str, int] = {}
        for field in sorted(literals):
            self._add(field, list(dict.fromkeys(literals[field])))
        self.full = [(1 << len(axis.values)) - 1 for axis in self.axes]
        self.patterns = {n: a for n, a in enumerate(self.axes) if a.field in _GLOBS}
        self._by_field = {f: [n for n, a in self.patterns.items() if a.field == f] for f in _GLOBS}
        self._fields = [f for f in _GLOBS if self._by_field[f]]
        self.groups = [frozenset(self._by_field[f]) for f in self._fields]
        self._leaves: dict[str, tuple[int, int, int]] = {}
        self._names: dict[tuple[str, int, int], str | None] = {}
        self._follows: dict[int, list[int]] = {}

    # ------------------------------------------------------------------ axes

    def _add(self, field: str, literals: list[Any]) -> None:
        if field in _SETS:
            if can_be_unknown(field):
                self._axis(field, field, (True, False))
            for member in literals:
                self._axis(f"{field}:{member}", field, (False, True), member)
        elif field in _GLOBS:
            for pattern in literals:
                self._axis(f"{field}~{pattern}", field, (False, True), pattern)
        elif field == "features":
            for feature in literals:
                self._axis(f"feature:{feature}", f"feature:{feature}", self.world.answers(feature))
        else:
            self._axis(field, field, self._values(field, literals))

    def _axis(self, name: str, field: str, values: tuple[Any, ...], member: str = "") -> None:
        self.index[name] = len(self.axes)
        self.axes.append(Axis(name, field, values, member))

    def _values(self, field: str, literals: list[Any]) -> tuple[Any, ...]:
        values: list[Any]
        unknown = can_be_unknown(field)
        if field in _BOOLS:
            return (False, True, None) if unknown else (False, True)
        if field == "memory":
            # No host has no memory at all: nothing lies below a break point at 0 or 1.
            sizes = sorted({size for text in literals if (size := parse_size(text)) > 1})
            values = [sizes[0] // 2, *sizes] if sizes else [16 << 30]
        elif field in _NUMBERS:
            points = sorted({float(n) for n in literals if n > 0})
            values = [points[0] / 2, *points] if points else [4.0]
        elif field in _VERSIONS:
            values = _versions(field, literals)
        elif field in self.world.words:
            values = list(self.world.words[field])
        else:
            words = [w for w in literals if not (unknown and w in ("", "unknown"))]
            other = "other"
            while other in words:
                other += "-other"
            values = [*words, other] if unknown or "" in words else ["", *words, other]
        return tuple([*values, None] if unknown else values)

    # ------------------------------------------------------------------ matches to boxes

    def boxes(self, match: Mapping[str, Any], wanted: bool = True) -> list[Box]:
        """Where ``match`` certainly holds (or certainly does not). Raises :class:`Undecided`."""
        parts = [self._clause(field, spec, wanted) for field, spec in match.items()]
        return self._all(parts) if wanted else self._any(parts)

    def _all(self, parts: list[list[Box]]) -> list[Box]:
        return cross(parts, self.full)

    def _any(self, parts: list[list[Box]]) -> list[Box]:
        return union(parts, self.full)

    def _clause(self, field: str, spec: Any, wanted: bool) -> list[Box]:
        both = self._all if wanted else self._any
        either = self._any if wanted else self._all
        if field in ("any", "all"):
            return (either if field == "any" else both)([self.boxes(part, wanted) for part in spec])
        if field == "not":
            return self.boxes(spec, not wanted)
        if field in _GLOBS:
            return either([self._switch(f"{field}~{pattern}", wanted) for pattern in _as_list(spec)])
        if field in _SETS:
            kinds = _spec(spec, "any")
            parts = [self._switch(f"{field}:{m}", wanted) for m in kinds["all"]]
            parts += [self._switch(f"{field}:{m}", not wanted) for m in kinds["none"]]
            if kinds["any"]:
                parts.append(either([self._switch(f"{field}:{m}", wanted) for m in kinds["any"]]))
            seen = [self._axis_box(field, 1)] if field in self.index else [[{}]]
            return self._all([*seen, both(parts)])
        if field == "features":
            kinds = _spec(spec, "all")
            parts = [self._leaf("features", [f], wanted) for f in kinds["all"]]
            parts += [self._leaf("features", [f], not wanted) for f in kinds["none"]]
            if kinds["any"]:
                parts.append(either([self._leaf("features", [f], wanted) for f in kinds["any"]]))
            return both(parts)
        return self._leaf(field, spec, wanted)

    def _switch(self, axis: str, wanted: bool) -> list[Box]:
        return self._axis_box(axis, YES if wanted else NO)

    def _axis_box(self, axis: str, mask: int) -> list[Box]:
        n = self.index[axis]
        return [{}] if mask == self.full[n] else [{n: mask}] if mask else []

    def _leaf(self, field: str, spec: Any, wanted: bool) -> list[Box]:
        key = f"{field} {json.dumps(spec)}"
        if key not in self._leaves:
            leaf = compile_match({field: spec}, self.world.features)
            (name,) = leaf.fields
            axis = self.index[name]
            self._leaves[key] = (axis, *_answers(leaf, name, self.axes[axis].values))
        axis, true, false = self._leaves[key]
        return self._axis_box(self.axes[axis].name, true if wanted else false)

    def ties(self) -> list[tuple[list[Box], str]]:
        """What the probes of the features make impossible, and why.

        A feature whose first probe is the kernel's version is nothing but that version, and one that has such a probe
        at all can be told wherever the version can. One whose first probe is a module is that module.
        """
        out: list[tuple[list[Box], str]] = []
        for axis in [a for a in self.axes if a.field.startswith("feature:")]:
            feature = axis.field[8:]
            tests = [pair for test in self.world.probes[feature] for pair in test.items()]
            kind, argument = tests[0]
            is_, is_not = {"features": {"all": [feature]}}, {"features": {"none": [feature]}}
            found: list[Box] = []
            versions = self.world.kernel_of(feature)
            if versions and None in axis.values:
                found += self._unknown(axis.name, True, "kernel", False)
            if kind == "since":
                found += self.boxes({"kernel": {"min": argument}, **is_not})
                found += self.boxes({"kernel": {"below": argument}, **is_})
                found += self._unknown(axis.name, False, "kernel", True) if len(tests) == 1 else []
                out.append((found, f"the feature {feature} is the kernel's version"))
            elif found:
                out.append((found, f"the feature {feature} can be told where the kernel's version can"))
            if kind == "module" and f"drivers:{argument}" in self.index:
                found = self.boxes({"drivers": {"all": [argument]}, **is_not})
                found += self.boxes({"drivers": {"none": [argument]}, **is_})
                found += self._unknown(axis.name, True, "drivers", False)
                if all(k == "module" for k, _ in tests):
                    found += self._unknown(axis.name, False, "drivers", True)
                out.append((found, f"the feature {feature} is the driver {argument}"))
        return out

    def _unknown(self, a: str, a_unknown: bool, b: str, b_unknown: bool) -> list[Box]:
        """Where ``a`` cannot (or can) be told and ``b`` cannot (or can)."""
        box: Box = {}
        for name, unknown in ((a, a_unknown), (b, b_unknown)):
            n = self.index[name]
            last = 1 << (len(self.axes[n].values) - 1)
            box[n] = last if unknown else self.full[n] & ~last
        return [box] if all(box.values()) else []

    # ------------------------------------------------------------------ names and patterns

    def consistent(self, box: Box, groups: Iterable[int]) -> bool:
        """Whether there are names that match the patterns as the box wants it. Raises :class:`Undecided`."""
        return all(self.name(self._fields[g], box) is not None for g in groups)

    def name(self, field: str, box: Box) -> str | None:
        """Such a name, or ``None``."""
        yes = no = 0
        for axis in self._by_field[field]:
            mask = box.get(axis, 3)
            if mask == YES:
                yes |= 1 << axis
            elif mask == NO:
                no |= 1 << axis
        key = (field, yes, no)
        if key not in self._names:
            wanted, unwanted = (tuple(self.axes[a].member for a in bits(group)) for group in (yes, no))
            self._names[key] = globs.example(wanted, unwanted, empty=field != "host")
        return self._names[key]

    def close(self, box: Box) -> Box:
        """The same box with the patterns that its own imply: what matches ``web-1*`` matches ``web-*``."""
        out = dict(box)
        for axis, mask in box.items():
            if axis in self.patterns and mask == YES:
                if axis not in self._follows:
                    self._follows[axis] = self._implied(axis)
                for other in self._follows[axis]:
                    out[other] = out.get(other, 3) & YES
        return out if all(out.values()) else box  # a contradiction is found by the search

    def _implied(self, axis: int) -> list[int]:
        field, pattern = self.axes[axis].field, self.axes[axis].member
        out = []
        for other in self._by_field[field]:
            try:
                rival = self.axes[other].member
                if other != axis and globs.example((pattern,), (rival,), field != "host") is None:
                    out.append(other)
            except Undecided:  # then the search has to find out
                continue
        return out

    # ------------------------------------------------------------------ points

    def point(self, box: Box) -> dict[str, Any]:
        """Values of one host in a box, by field; ``feature:NAME`` for features."""
        values: dict[str, Any] = {}
        for n, axis in enumerate(self.axes):
            mask = box.get(n, self.full[n])
            if axis.field in _SETS:
                if not axis.member:
                    values[axis.field] = frozenset() if mask & 1 else None
                    continue
                values.setdefault(axis.field, frozenset())
                if mask == YES and values[axis.field] is not None:
                    values[axis.field] |= {axis.member}
            elif axis.field in _GLOBS:
                continue
            else:
                values[axis.field] = axis.values[(mask & -mask).bit_length() - 1]
        for field, axes in self._by_field.items():
            if axes:
                values[field] = self.name(field, box)
        return values


def _answers(leaf: Matcher, field: str, values: tuple[Any, ...]) -> tuple[int, int]:
    """Masks of the classes that a leaf calls true and false."""
    true = false = 0
    for n, value in enumerate(values):
        answer = leaf.test(Cell({field: value}))
        true |= (answer is True) << n
        false |= (answer is False) << n
    return true, false


def _versions(field: str, literals: list[str]) -> list[str]:
    """One version per stretch between break points, newest first."""
    reached: Callable[[str, str], bool]
    if field == "kernel":
        reached = at_least
        points = [".".join(re.findall("[0-9]+", t)) for t in literals]
        below = ["5.10", "4.18", "2.6.32", "0"]
    else:
        reached = lambda version, literal: Version(version) >= Version(literal)  # noqa: E731
        points = literals
        below = ["9", "1", *(f"{t}~" for t in literals), *(f"{t}0" for t in literals), "0", "~"]
    kinds: dict[int, str] = {}
    for version in [*points, *below]:
        if version and version != "unknown":
            kinds.setdefault(sum(reached(version, t) for t in set(literals)), version)
    return [kinds[n] for n in sorted(kinds, reverse=True)]
