# SPDX-License-Identifier: Apache-2.0
"""How much memory to set aside: the distribution's table, what the hardware needs on top, and what the policy wants.

Everything that depends on how much RAM a host has happens in :meth:`Basis.reservation`, so that hosts that differ in
nothing else share a decision. Data and sources: policies/knowledge/reservations.yaml.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.crashkernel import Crashkernel, Range, format_size, parse, parse_size, reserved_by
from orchestrator.documents.decision import Reservation
from orchestrator.policy.context import Features, View
from orchestrator.policy.match import Matcher, compile_match


@dataclass(frozen=True)
class Trouble:
    """Why a reservation cannot be had on a host, whatever its RAM."""

    what: str
    why: str
    fix: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Basis:
    """Where a reservation comes from, before it is known how much RAM a host has. Sizes in bytes."""

    texts: tuple[str, ...]  # values of crashkernel= without what follows below
    origin: str  # table | named | fixed
    why: str
    sources: tuple[str, ...]
    minimum: int = 0
    high: bool = False
    low: int = 0
    cma: str = ""
    troubles: tuple[Trouble, ...] = ()

    def reservation(self, ram: int | None, cite: Any) -> Reservation:
        """The reservation on a host with ``ram`` bytes. ``cite`` turns ids of sources into sources."""
        texts, why = list(self.texts), self.why
        wanted = reserved_by(texts, ram) if ram else None
        if wanted is not None and wanted < self.minimum:
            texts, wanted = [format_size(self.minimum)], self.minimum
            why += ", raised to the policy's minimum"
        if self.high and ram and wanted:
            texts = [f"{format_size(wanted)},high", f"{format_size(self.low)},low"]
            wanted += self.low
            why += ", above 4 GiB with a part below"
        elif self.high and not ram:
            why += "; how much RAM there is is not known, so it cannot be placed above 4 GiB"
        if wanted == 0 and ram:
            why += f"; with {format_size(ram)} of RAM the kernel would silently reserve nothing"
        if self.cma:
            texts.append(f"{self.cma},cma")
        return Reservation(arguments=texts, wanted=wanted, origin=self.origin, why=why, sources=cite(self.sources))


@dataclass(frozen=True)
class _Row:
    match: Matcher
    value: str
    sources: tuple[str, ...]
    own: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class _Delta:
    id: str
    match: Matcher
    add: int
    why: str
    sources: tuple[str, ...]


def _plus(text: str, add: int) -> str:
    """A table with ``add`` bytes more in every range; the very same text when nothing is added."""
    if not add:
        return text
    value = parse(text)
    ranges = tuple(Range(r.start, r.end, r.size + add) for r in value.ranges)
    return str(Crashkernel(value.size + add if value.size is not None else None, ranges, value.offset))


class Sizer:
    """All tables, compiled. ``matchers`` are what its answers depend on."""

    def __init__(self, data: Mapping[str, Any], features: Features) -> None:
        def rows(entries: Iterable[Mapping[str, Any]], sources: Sequence[str] = ()) -> tuple[_Row, ...]:
            return tuple(
                _Row(
                    compile_match(e["match"], features, "knowledge/reservations.yaml"),
                    e["value"],
                    tuple(e.get("sources", sources)),
                    tuple(e.get("own", ())),
                    e.get("estimate", ""),
                )
                for e in entries
            )

        self._tables = rows(data["tables"])
        self._fadump = rows(data["fadump"])
        self._named = {name: rows(t["rows"], t["sources"]) for name, t in data["named"].items()}
        self._deltas = tuple(
            _Delta(d["id"], compile_match(d["match"], features), parse_size(d["add"]), d["why"], tuple(d["sources"]))
            for d in data["deltas"]
        )
        self._suffixes = {n: (compile_match(s["match"], features), s) for n, s in data["suffixes"].items()}
        for row in (*self._tables, *self._fadump, *(r for named in self._named.values() for r in named)):
            parse(row.value)  # a table that the kernel would not understand is our fault, and is found here

    @property
    def names(self) -> frozenset[str]:
        """Tables that a policy can ask for."""
        return frozenset(self._named)

    @property
    def sources(self) -> frozenset[str]:
        """Ids of all sources, so that they can be checked."""
        rows = (*self._tables, *self._fadump, *(r for named in self._named.values() for r in named))
        found = {s for row in rows for s in row.sources} | {s for delta in self._deltas for s in delta.sources}
        return frozenset(found.union(*(s["sources"] for _, s in self._suffixes.values())))

    @property
    def matchers(self) -> tuple[Matcher, ...]:
        """What the answers depend on."""
        named = [r.match for rows in self._named.values() for r in rows]
        tables = [r.match for r in (*self._tables, *self._fadump)]
        return (*tables, *named, *(d.match for d in self._deltas), *(m for m, _ in self._suffixes.values()))

    def basis(self, wish: Mapping[str, Any], view: View, fadump: bool = False) -> Basis:
        """What a policy's ``reservation`` setting comes to on a host, but for its RAM."""
        if "crashkernel" in wish:
            given = wish["crashkernel"]
            texts = (given,) if isinstance(given, str) else tuple(given)
            basis = Basis(texts, "fixed", "the policy fixes it", ())
        else:
            basis = self._computed(wish, view, fadump)
        if "minimum" in wish:
            basis = replace(basis, minimum=parse_size(wish["minimum"]))
        if wish.get("placement") == "high":
            known = self._suffixes["high"][1]["low"]
            low = wish.get("low") or known.get(view.value("arch"), known["*"])
            basis = replace(basis, high=True, low=parse_size(low))
        if "cma" in wish:
            basis = replace(basis, cma=wish["cma"])
        return replace(basis, troubles=tuple(self._troubles(basis, view)))

    def _computed(self, wish: Mapping[str, Any], view: View, fadump: bool) -> Basis:
        name = wish.get("table", "")
        rows = self._named[name] if name else self._fadump if fadump else self._tables
        row = next((r for r in rows if r.match.test(view) is True), None)
        if row is None:  # firmware-assisted dump where there is none: a limit refuses it
            row = next(r for r in self._tables if r.match.test(view) is True)
        why = f"the table {name!r}" if name else "the distribution's own table"
        if fadump and not name:
            why = "the table for firmware-assisted dump"
        if row.note:
            why += f" ({row.note})"
        add, sources = 0, list(row.sources)
        if wish.get("deltas", True) and not fadump:
            for delta in self._deltas:
                if delta.id not in row.own and delta.match.test(view) is True:
                    add += delta.add
                    why += f", plus {format_size(delta.add)} ({delta.why})"
                    sources += delta.sources
        if "extra" in wish:
            add += parse_size(wish["extra"])
            why += f", plus the policy's {wish['extra']}"
        kind = "named" if name else "table"
        return Basis((_plus(row.value, add),), kind, why, tuple(dict.fromkeys(sources)))

    def _troubles(self, basis: Basis, view: View) -> Iterable[Trouble]:
        used = {"high" if text.endswith((",high", ",low")) else "" for text in basis.texts}
        used |= {"high"} if basis.high else set()
        used |= {"cma"} if basis.cma or any(text.endswith(",cma") for text in basis.texts) else set()
        for name in sorted(used - {""}):
            match, data = self._suffixes[name]
            if match.test(view) is False:
                what = f"this kernel does not understand crashkernel=…,{name}"
                why = f"{data['why']}; it would silently reserve nothing"
                yield Trouble(what, why, "leave it out for such hosts", tuple(data["sources"]))
