# SPDX-License-Identifier: Apache-2.0
"""Controls of baselines: what each demands of kdump, who demands it, which checks answer it. Data, read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import msgspec

from orchestrator.errors import InvalidInput, KnowledgeError, did_you_mean
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

_FILE = "policies/knowledge/controls.yaml"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Reference(_Struct, frozen=True, kw_only=True):
    """A public source, and the month in which somebody looked."""

    title: str
    url: str
    checked: str


class Baseline(_Struct, frozen=True, kw_only=True):
    """A baseline that names the control. ``wants``: plain | masked | documented (off unless the need is documented)."""

    by: str
    of: str
    rule: str
    wants: str
    sources: tuple[str, ...]
    version: str = ""
    ids: tuple[str, ...] = ()
    severity: str = ""


class Contradiction(_Struct, frozen=True, kw_only=True):
    """Another control that cannot hold at the same time."""

    id: str
    why: str


class Control(_Struct, frozen=True, kw_only=True):
    """One control. ``demands``: enabled | disabled | locked | absent; ``checks`` are ids, all of which must hold."""

    id: str
    title: str
    demands: str
    why: str
    fix: str
    baselines: tuple[Baseline, ...]
    sources: tuple[str, ...]
    note: str = ""
    checks: tuple[str, ...] = ()
    proof: bool = False
    contradicts: tuple[Contradiction, ...] = ()


class Controls(_Struct, frozen=True, kw_only=True):
    """All of them, in their order."""

    sources: Mapping[str, Reference]
    controls: tuple[Control, ...]

    def chosen(self, ids: tuple[str, ...]) -> tuple[Control, ...]:
        """Controls by id; ``all`` is every one. Raises :class:`InvalidInput` for an id that there is not."""
        known = {c.id: c for c in self.controls}
        for id in ids:
            if id != "all" and id not in known:
                fix = did_you_mean(id, known) or f"known here: {', '.join(known)}"
                raise InvalidInput(f"there is no control {id!r}", where="--control", fix=fix)
        return self.controls if "all" in ids else tuple(known[id] for id in dict.fromkeys(ids))


@cache
def controls() -> Controls:
    """The shipped controls. Raises :class:`KnowledgeError` if the data does not hold together."""
    try:
        found = msgspec.convert(load_yaml(read_text(_FILE), _FILE).data, type=Controls)
        known = {c.id for c in found.controls}
        for c in found.controls:
            for source in (*c.sources, *(s for b in c.baselines for s in b.sources)):
                found.sources[source]
            if missing := {x.id for x in c.contradicts} - known:
                raise KeyError(f"{c.id} contradicts {', '.join(sorted(missing))}")
        if len(known) != len(found.controls):
            raise KeyError("an id stands twice")
    except (msgspec.ValidationError, KeyError) as e:
        raise KnowledgeError("the shipped controls do not hold together", where=_FILE, why=str(e)) from e
    return found
