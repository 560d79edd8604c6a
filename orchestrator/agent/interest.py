# SPDX-License-Identifier: Apache-2.0
"""``policies/knowledge/watch.yaml``: which events and files matter, why, and who says so. Read once, checked for shape."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from orchestrator.errors import KnowledgeError
from orchestrator.fleet.collect import interest as probe_interest
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

_FILE = "policies/knowledge/watch.yaml"

Words = str | list[str]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who says so. ``checked``: the month in which somebody looked."""

    title: str
    checked: str = ""


class EventMatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an event must be. ``name``, ``driver`` and ``not`` are shell patterns."""

    subsystem: Words
    action: Words
    name: list[str] = []
    driver: list[str] = []
    never: list[str] = msgspec.field(default_factory=list, name="not")


class EventRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of event that matters."""

    id: str
    match: EventMatch
    what: str
    why: str
    sources: list[str]


class PollRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files that no event tells of: small ones that are read, and paths of which only the metadata counts."""

    id: str
    what: str
    why: str
    sources: list[str]
    values: list[str] = []
    paths: list[str] = []
    probe: str = ""


class TargetRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a change of a dump target is called."""

    id: str
    what: str
    why: str
    sources: list[str]


class Interest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    sources: dict[str, Source]
    events: list[EventRow]
    polls: list[PollRow]
    targets: TargetRow


def words(value: Words) -> list[str]:
    """One word or several, as a list."""
    return [value] if isinstance(value, str) else value


def _paths(row: PollRow, probe: dict[str, Any]) -> list[str]:
    return [*row.paths, *(probe[row.probe] if row.probe else [])]


def parse(text: str, name: str = _FILE) -> Interest:
    """Check and complete. Raises :class:`KnowledgeError` when it does not hold together."""
    try:
        found = msgspec.convert(load_yaml(text, name).data, Interest)
        probe = probe_interest()
        rows: Sequence[EventRow | PollRow | TargetRow] = [*found.events, *found.polls, found.targets]
        ids = [row.id for row in rows]
        if twice := {i for i in ids if ids.count(i) > 1}:
            raise ValueError(f"ids stand twice: {sorted(twice)}")
        for row in rows:
            if unknown := [s for s in row.sources if s not in found.sources] or not row.sources:
                raise ValueError(f"{row.id}: sources {unknown}")
        polls = [msgspec.structs.replace(row, paths=_paths(row, probe)) for row in found.polls]
    except (msgspec.ValidationError, KeyError, ValueError) as e:
        raise KnowledgeError(
            "the list of what to watch does not hold together", where=name, why=str(e), fix="install it again"
        ) from None
    return msgspec.structs.replace(found, polls=polls)


@cache
def interest() -> Interest:
    """The shipped file."""
    return parse(read_text(_FILE))
