# SPDX-License-Identifier: Apache-2.0
"""From facts to the rows that match them, for one architecture. The hot part: no row is tested twice on the same text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from orchestrator.documents.facts import CpuidLeaf, Facts
from orchestrator.documents.platform import Evidence
from orchestrator.platforms.fields import ACPI, DICTIONARIES, LISTS, SCALARS, text
from orchestrator.platforms.memory import Matches, Room
from orchestrator.platforms.rows import Hit, Row, hit

_HYPERVISOR_BASE, _HYPERVISOR_END = 0x4000_0000, 0x4001_0000
_FEW_LEAVES = 8  # more than any machine has base leaves with a signature; longer lists are not remembered


def _leaf_number(leaf: CpuidLeaf) -> int:
    try:
        return int(leaf.leaf, 16)
    except ValueError:
        return -1


def _many(paths: Sequence[str]) -> Any:
    """Getter of several attributes at once: always a tuple."""
    get = attrgetter(*paths)
    return get if len(paths) != 1 else lambda facts: (get(facts),)


class Gatherer:
    """All rows that can match on one architecture."""

    def __init__(self, rows: Sequence[Row], arch: str, lower_leaf_note: str, room: Room) -> None:
        by_field: dict[str, list[Row]] = {}
        for row in rows:
            if row.arch is None or arch in row.arch:
                by_field.setdefault(row.field, []).append(row)
        self._note = lower_leaf_note
        self._room = room
        self._cpuid = Matches(by_field.pop("cpuid", []), room)
        self._cpuid_other = Matches(by_field.pop("cpuid.other", []), room)
        self._seen_leaves: dict[tuple[tuple[str, str], ...], tuple[tuple[Hit, ...], tuple[Evidence, ...]]] = {}
        scalars = [name for name in SCALARS if name in by_field]
        lists = [name for name in LISTS if name in by_field]
        self._get_scalars = _many([SCALARS[name] for name in scalars])
        self._scalars = [Matches(by_field[name], room) for name in scalars]
        self._seen_scalars: dict[tuple[Any, ...], tuple[Hit, ...]] = {}
        room.join(self._seen_leaves)
        room.join(self._seen_scalars)
        self._get_lists = _many([LISTS[name] for name in lists])
        self._lists = [Matches(by_field[name], room) for name in lists]
        self._log = self._lists[lists.index("kernel_log")] if "kernel_log" in lists else Matches([], room)
        self._lacks = [
            (attrgetter(LISTS[name]), row.lacks, hit(row, "without " + " ".join(sorted(row.lacks))))
            for name in lists
            for row in by_field[name]
            if row.test is None
        ]
        self._acpi = [(ACPI[name], Matches(by_field[name], room)) for name in ACPI if name in by_field]
        self._dictionaries: list[tuple[Any, Mapping[str, Matches]]] = []
        for first, path in DICTIONARIES.items():
            keys = {
                n.partition(".")[2]: Matches(r, room)
                for n, r in by_field.items()
                if n.startswith(first + ".") and n not in SCALARS
            }
            if keys:
                self._dictionaries.append((attrgetter(path), keys))
            if first == "dmi":
                self._dmi = keys

    def _of_scalars(self, values: tuple[Any, ...]) -> tuple[Hit, ...]:
        found: list[Hit] = []
        for each, value in zip(self._scalars, values, strict=True):
            if value is not None and value != "":
                found += each[text(value)]
        result = tuple(found)
        length = sum(len(v) for v in values if isinstance(v, str))
        if length <= Matches.LONGEST * 4:
            self._room.take(4 * length + 80 * len(values))
            self._seen_scalars[values] = result
        return result

    def _of_cpuid(self, leaves: Sequence[CpuidLeaf]) -> tuple[tuple[Hit, ...], tuple[Evidence, ...]]:
        """Kernel rule (arch/x86/kernel/cpu/hypervisor.c): of all known signatures the highest base leaf wins.

        Returns the hits of that leaf, and what the others say as evidence that was set aside.
        """
        hits: list[Hit] = []
        aside: list[Evidence] = []
        ranked: set[tuple[int, str]] = set()
        for leaf in leaves:
            number = _leaf_number(leaf)
            if not _HYPERVISOR_BASE <= number < _HYPERVISOR_END:
                hits += self._cpuid_other[f"{number:#x}:{leaf.signature.strip()}"]
            elif leaf.signature:
                ranked.add((number, leaf.signature))
        known = [n for n, signature in ranked if any(not h.row.fallback for h in self._cpuid[signature])]
        top = max(known or [n for n, _ in ranked], default=0)
        for number, signature in sorted(ranked, key=lambda r: (-r[0], r[1])):
            if number == top:
                hits += self._cpuid[signature]
            else:
                aside += [h.row.evidence(f"{signature} @ {number:#x}", self._note) for h in self._cpuid[signature]]
        result = tuple(hits), tuple(aside)
        length = sum(len(leaf.leaf) + len(leaf.signature) for leaf in leaves)
        if len(leaves) <= _FEW_LEAVES and length <= Matches.LONGEST:
            self._room.take(4 * length + 400 * (1 + len(leaves) + len(aside)))
            self._seen_leaves[tuple((leaf.leaf, leaf.signature) for leaf in leaves)] = result
        return result

    def telling(self, log: Sequence[str]) -> list[str]:
        """Those lines of a kernel log that match a row."""
        matches = self._log
        return [line for line in log if matches[line]]

    def telling_dmi(self, dmi: Mapping[str, str], whole: frozenset[str]) -> list[tuple[str, str]]:
        """What of DMI can matter: firmware names and numbers of single machines match no row."""
        matches = self._dmi
        return [(k, v) for k, v in dmi.items() if k in whole or (k in matches and v and matches[k][v])]

    def gather(self, facts: Facts, aside: list[Evidence]) -> list[Hit]:
        """Rows that match and whose conditions hold, highest rank first, each row once (with the first of its texts).

        CPUID leaves that another one overrules are appended to ``aside``.
        """
        signals = facts.signals
        scalars = self._get_scalars(facts)
        known = self._seen_scalars.get(scalars)
        hits: list[Hit] = list(known if known is not None else self._of_scalars(scalars))
        for each, values in zip(self._lists, self._get_lists(facts), strict=True):
            if values:
                for value in values:
                    found = each[value]
                    if found:
                        hits += found
        for get, words, missing in self._lacks:
            values = get(facts)
            if values is not None and words.isdisjoint(values):
                hits.append(missing)
        for get, keys in self._dictionaries:
            for key, value in get(facts).items():
                if key in keys and value:
                    hits += keys[key][value if value.__class__ is str else str(value)]
        for table in signals.acpi:
            for of_table, each in self._acpi:
                value = of_table(table)
                if value:
                    hits += each[value]
        if signals.cpuid:
            leaves = self._seen_leaves.get(tuple([(leaf.leaf, leaf.signature) for leaf in signals.cpuid]))
            chosen, overruled = leaves if leaves is not None else self._of_cpuid(signals.cpuid)
            hits += chosen
            aside += overruled
        hits.sort(key=itemgetter(0))
        kept: list[Hit] = []
        last = -1
        for h in hits:
            row = h[1]
            if row.index == last:  # the same row matched several texts: the first speaks for all
                continue
            for condition in row.conditions:
                if not condition(facts):
                    break
            else:
                last = row.index
                kept.append(h)
        return kept
