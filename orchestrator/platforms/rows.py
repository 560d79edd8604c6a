# SPDX-License-Identifier: Apache-2.0
"""Rows of the platform table, compiled: a test of one field, the conditions around it, and what it says.

What a row says about a field with a vocabulary is a set, kept as a bit mask: ``[kvm, tcg]`` is "one of these",
``["!none"]`` is "anything but". Narrowing is then one ``&``, and an empty intersection is a contradiction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Evidence
from orchestrator.platforms.fields import CPUID, LISTS, SCALARS, getter, text

Test = Callable[[str], bool]
Condition = Callable[[Facts], bool]

#: Longest text that an evidence keeps.
VALUE_LIMIT = 200

_TESTS = ("equals", "prefix", "suffix", "contains", "regex", "bit", "more_than", "present")
_WHOLE = ("lacks",)
_ROW_KEYS = frozenset(
    {
        "source", "field", "says", "rank", "brand", "note", "ref", "arch", "also", "unless", "systemd", "for",
        "fallback", "yields", *_TESTS, *_WHOLE,
    }
)  # fmt: skip


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, list) else (str(value),)


def compile_test(kind: str, argument: Any) -> Test:
    """A test of one text. A list as argument means any of its elements (``bit``, ``more_than``: one number)."""
    if kind == "bit":
        mask = 1 << int(argument)

        def bit(value: str) -> bool:
            try:
                return bool(int(value, 16) & mask)
            except ValueError:
                return False

        return bit
    if kind == "more_than":
        limit = int(argument)
        return lambda value: value.isdecimal() and int(value) > limit
    if kind == "present":
        return bool
    texts = _texts(argument)
    if kind == "equals":
        return frozenset(texts).__contains__
    if kind == "prefix":
        return lambda value: value.startswith(texts)
    if kind == "suffix":
        return lambda value: value.endswith(texts)
    if kind == "contains" and len(texts) == 1:
        only = texts[0]
        return lambda value: only in value
    if kind in ("contains", "regex"):
        patterns = [re.compile(re.escape(text) if kind == "contains" else text) for text in texts]
        if len(patterns) == 1:
            search = patterns[0].search
            return lambda value: search(value) is not None
        return lambda value: any(pattern.search(value) for pattern in patterns)
    raise KeyError(f"no test {kind!r}")


def _the_test(data: Mapping[str, Any], kinds: Sequence[str]) -> tuple[str, Any]:
    found = [(kind, data[kind]) for kind in kinds if kind in data]
    if len(found) != 1:
        raise KeyError(f"exactly one of {', '.join(kinds)} is needed in {dict(data)}")
    return found[0]


def compile_condition(data: Mapping[str, Any]) -> Condition:
    """``{field, TEST}`` on all facts: true if any value of the field passes; ``absent: true`` turns it round, and is
    then true for a field that was not seen as well."""
    get = getter(data["field"])
    kind, argument = _the_test(data, _TESTS)
    wanted = not data.get("absent", False)
    if kind == "equals":
        texts = frozenset(_texts(argument))
        if data["field"] in SCALARS:
            scalar = attrgetter(SCALARS[data["field"]])
            return lambda facts: (text(scalar(facts)) in texts) is wanted
        if data["field"] in LISTS:
            listed = attrgetter(LISTS[data["field"]])
            return lambda facts: texts.isdisjoint(listed(facts) or ()) is not wanted
        return lambda facts: texts.isdisjoint(get(facts)) is not wanted
    test = compile_test(kind, argument)
    if data["field"] in SCALARS:
        scalar = attrgetter(SCALARS[data["field"]])

        def holds(facts: Facts) -> bool:
            value = text(scalar(facts))
            return (value != "" and test(value)) is wanted

        return holds
    return lambda facts: any(test(value) for value in get(facts)) is wanted


_NUMBER = re.compile(r"\d+")


def _systemd(gate: str) -> Condition:
    """``<256`` also holds where the version is unknown: an old systemd's errors are then possible."""
    below, bound = gate.startswith("<"), int(gate.lstrip("<>="))

    def holds(facts: Facts) -> bool:
        found = _NUMBER.search(facts.signals.detect_virt.version[:40])
        if found is None or len(found[0]) > 6:
            return below
        return (int(found[0]) < bound) is below

    return holds


def compile_conditions(data: Mapping[str, Any]) -> tuple[Condition, ...]:
    """Everything in a row that must hold besides its own test (``also``, ``unless``, ``systemd``)."""
    out = [compile_condition(c) for c in data.get("also", [])]
    out += [compile_condition({**c, "absent": not c.get("absent", False)}) for c in data.get("unless", [])]
    if "systemd" in data:
        out.append(_systemd(data["systemd"]))
    return tuple(out)


class Vocabulary:
    """Words of one field as bits, in the order of the data."""

    def __init__(self, words: Sequence[str]) -> None:
        self.bits = {word: 1 << i for i, word in enumerate(words)}
        self.names = {bit: word for word, bit in self.bits.items()}
        self.all = (1 << len(words)) - 1

    def mask(self, words: Sequence[str]) -> int:
        """Mask of a set; a set is either plain words or words with ``!`` (all but these)."""
        if words and words[0].startswith("!"):
            out = self.all
            for word in words:
                out &= ~self.bits[word.removeprefix("!")]
            return out
        out = 0
        for word in words:
            out |= self.bits[word]
        return out

    def spell(self, mask: int) -> str:
        """``kvm``, ``kvm|tcg``, or ``!none`` where that is shorter; ``unknown`` for all words at once."""
        if mask == self.all:
            return "unknown"
        inside = [w for w, b in self.bits.items() if b & mask]
        outside = [w for w, b in self.bits.items() if not b & mask]
        return "!" + ",!".join(outside) if len(outside) < len(inside) else "|".join(inside)


@dataclass(frozen=True)
class Row:
    """One row. ``masks``: field → (mask, preferred bit); ``texts``: free text fields; ``flags``: boolean fields."""

    index: int
    field: str
    data: Mapping[str, Any]
    test: Test | None  # None: a test of the whole list
    lacks: frozenset[str]
    arch: frozenset[str] | None
    conditions: tuple[Condition, ...]
    masks: Mapping[str, tuple[int, int]]
    product: str
    paravisor: bool
    given: Mapping[str, frozenset[str]]  # counts only when these conclusions were reached
    says: str
    rank: int
    brand: bool
    fallback: bool
    yields: bool

    def evidence(self, value: str, note: str = "") -> Evidence:
        """What this row makes of a value."""
        shown = value[:VALUE_LIMIT]
        if not shown.isprintable():
            shown = "".join(c if c.isprintable() else "?" for c in shown)
        return Evidence(
            source=self.data["source"],
            value=shown,
            says=self.says,
            rank=self.rank,
            brand=self.brand,
            note=note or self.data.get("note", ""),
            ref=self.data["ref"],
        )


def _spell(field: str, words: Sequence[str]) -> str:
    if words[0].startswith("!"):
        return ",".join(f"{field}!={w.removeprefix('!')}" for w in words)
    return f"{field}={'|'.join(words)}"


def compile_row(index: int, field: str, data: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary]) -> Row:
    """One row for one field. Raises ``KeyError`` or ``ValueError`` for a row that does not hold together."""
    unknown = set(data) - _ROW_KEYS
    if unknown:
        raise KeyError(f"row {index}: unknown keys {sorted(unknown)}")
    if field not in CPUID:
        getter(field)  # raises for a name that does not exist
    kind, argument = _the_test(data, (*_TESTS, *_WHOLE))
    masks: dict[str, tuple[int, int]] = {}
    says: list[str] = []
    for name, stated in data["says"].items():
        if name in ("product", "paravisor"):
            if name == "paravisor":
                says.append("paravisor=true" if stated else "paravisor=false")
            continue
        words = _texts(stated)
        vocabulary = vocabularies[name]
        prefer = 0 if words[0].startswith("!") else vocabulary.bits[words[0]]
        masks[name] = (vocabulary.mask(words), prefer)
        says.append(_spell(name, words))
    product = str(data["says"].get("product", ""))
    if product:
        says.append("product")
    given = {name: frozenset(_texts(words)) for name, words in data.get("for", {}).items()}
    if given and masks.keys() & {"hypervisor", "role", "inside"}:
        raise ValueError(f"row {index}: a row with `for` cannot speak about what it depends on")
    return Row(
        index=index,
        field=field,
        data=data,
        test=None if kind in _WHOLE else compile_test(kind, argument),
        lacks=frozenset(_texts(argument)) if kind == "lacks" else frozenset(),
        arch=frozenset(_texts(data["arch"])) if "arch" in data else None,
        conditions=compile_conditions(data),
        masks=masks,
        product=product,
        paravisor=bool(data["says"].get("paravisor", False)),
        given=given,
        says=", ".join(says),
        rank=int(data["rank"]),
        brand=bool(data.get("brand", False)),
        fallback=bool(data.get("fallback", False)),
        yields=bool(data.get("yields", False)),
    )


class Statement(NamedTuple):
    """What one hit says about one field: its mask and the bit that it prefers (0: none)."""

    row: Row
    evidence: Evidence
    mask: int
    preferred: int


class Hit(NamedTuple):
    """One row that matched one value. ``order`` sorts: highest rank, then table order, then text."""

    order: tuple[int, int, str]
    row: Row
    evidence: Evidence
    statements: tuple[tuple[str, Statement], ...]


def hit(row: Row, value: str) -> Hit:
    """A match with all that follows from it, so that it is made once per text."""
    evidence = row.evidence(value)
    statements = tuple(
        (name, Statement(row, evidence, mask, preferred)) for name, (mask, preferred) in row.masks.items()
    )
    return Hit((-row.rank, row.index, evidence.value), row, evidence, statements)
