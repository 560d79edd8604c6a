# SPDX-License-Identifier: Apache-2.0
"""The knowledge data, loaded once: platform rows, guards, features, capture sets, reservations, sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.documents.base import digest
from orchestrator.documents.decision import Source
from orchestrator.errors import InvalidInput, KnowledgeError
from orchestrator.policy.context import TEST_KINDS, Features, compile_feature
from orchestrator.policy.limits import Limit
from orchestrator.policy.match import Matcher, compile_match
from orchestrator.policy.sizing import Sizer
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

_FILES = ("sources", "features", "strategies", "capture", "reservations", "families", "limits")
_FIX = "give a directory like policies/knowledge of this version"


@dataclass(frozen=True)
class Row:
    """One row or guard: its compiled match and its data."""

    id: str
    where: str
    match: Matcher
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Knowledge:
    """Everything that is known about the world, read-only."""

    sources: Mapping[str, Source]
    features: Features
    rows: tuple[Row, ...]
    guards: tuple[Row, ...]
    capture: Mapping[str, Any]
    exclusive: tuple[frozenset[str], ...]
    never: Mapping[str, str]  # argument of the capture kernel → why it must not be asked for
    sizer: Sizer
    limits: tuple[Limit, ...]
    families: Mapping[str, Any]
    reported_stacks: Mapping[str, str]
    unsupported: frozenset[str]
    by_hand: Mapping[str, Mapping[str, str]]  # unsupported family → why, and what to do there
    hash: str

    def cite(self, ids: list[str] | tuple[str, ...]) -> list[Source]:
        """Sources by id."""
        return [self.sources[i] for i in ids]


def _compile(entries: list[dict[str, Any]], features: Features, name: str) -> tuple[Row, ...]:
    return tuple(Row(e["id"], f"{name}#{e['id']}", compile_match(e["match"], features, name), e) for e in entries)


def _features(data: dict[str, Any]) -> Features:
    for name, tests in data.items():
        for test in tests:
            if len(test) != 1 or not set(test) <= TEST_KINDS:
                raise KeyError(f"feature {name}: {test}")
    return {name: compile_feature(tests) for name, tests in data.items()}


def _limit(data: dict[str, Any], features: Features) -> Limit:
    return Limit(
        id=data["id"],
        setting=data["setting"],
        values=tuple(data["values"]) if "values" in data else None,
        above=data.get("above"),
        match=compile_match(data["match"], features, "knowledge/limits.yaml"),
        why=data["why"],
        fix=data["fix"],
        sources=tuple(data["sources"]),
        where=f"knowledge/limits.yaml#{data['id']}",
        source=data["match"],
    )


def _check(k: Knowledge) -> None:
    """Shipped data must hold together: every source, feature and set that is named exists."""
    k.cite(sorted(k.sizer.sources))
    for limit in k.limits:
        k.cite(limit.sources)
    for row in (*k.rows, *k.guards):
        for layer in row.data.get("layers", {}).values():
            k.cite(layer.get("sources", []))
            if "feature" in layer:
                k.features[layer["feature"]]
        k.cite(row.data.get("sources", []))
        if "capture" in row.data:
            k.capture[row.data["capture"]]
        if "requires" in row.data:
            k.features[row.data["requires"]["feature"]]
        if "refuse" not in row.data and "layers" in row.data and len(row.data["layers"]) != 3:
            raise KeyError(f"{row.id} does not state all three layers")


def _by_hand(data: Any) -> Mapping[str, Mapping[str, str]]:
    """Older knowledge names the families only."""
    return data if isinstance(data, Mapping) else {name: {} for name in data}


def _read(directory: Path | None) -> dict[str, Any]:
    """The files as plain data: the shipped ones, or those of another directory."""
    data: dict[str, Any] = {}
    for name in _FILES:
        shown = f"policies/knowledge/{name}.yaml" if directory is None else str(directory / f"{name}.yaml")
        try:
            text = read_text(shown) if directory is None else Path(shown).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            if directory is None:
                raise
            raise InvalidInput("the knowledge data cannot be read", where=shown, why=str(e), fix=_FIX) from None
        data[name] = load_yaml(text, shown).data
    return data


@cache
def knowledge(directory: Path | None = None) -> Knowledge:
    """The shipped knowledge, or that of another directory, e.g. of an older version.

    Raises :class:`KnowledgeError` if the shipped one does not hold together, :class:`InvalidInput` if another one does not.
    """
    data = _read(directory)
    try:
        features = _features(data["features"]["features"])
        result = Knowledge(
            sources={i: Source(id=i, title=s["title"]) for i, s in data["sources"]["sources"].items()},
            features=features,
            rows=_compile(data["strategies"]["rows"], features, "knowledge/strategies.yaml"),
            guards=_compile(data["strategies"]["guards"], features, "knowledge/strategies.yaml"),
            capture=data["capture"]["sets"],
            never={entry["argument"]: entry["why"] for entry in data["capture"]["never"]},
            exclusive=tuple(frozenset(g) for g in data["capture"]["exclusive"]),
            sizer=Sizer(data["reservations"], features),
            limits=tuple(_limit(entry, features) for entry in data["limits"]["limits"]),
            families=data["families"]["families"],
            reported_stacks=data["families"]["reported_stacks"],
            unsupported=frozenset(data["families"]["unsupported"]),
            by_hand=_by_hand(data["families"]["unsupported"]),
            hash=digest(data),
        )
        _check(result)
    except (KeyError, TypeError, AttributeError, InvalidInput) as e:
        if directory is not None:
            what = "the knowledge data does not hold together"
            raise InvalidInput(what, where=str(directory), why=str(e), fix=_FIX) from None
        raise KnowledgeError(
            "the shipped knowledge data does not hold together", why=str(e), fix="install it again"
        ) from e
    return result
