# SPDX-License-Identifier: Apache-2.0
"""Kinds of crashes that can be ordered, and likely causes of a dump that did not come about: data, compiled once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from orchestrator.errors import InvalidInput, KnowledgeError, did_you_mean
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

FILE = "policies/knowledge/crashes.yaml"


class Kind(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to crash a machine, as the data file describes it."""

    id: str
    title: str
    panic: str
    sources: list[str]
    script: str = ""
    sysctls: dict[str, int] = {}
    module: str = ""
    monitor: str = ""
    background: str = ""
    capture: str = ""
    chosen_cpu: bool = False
    archs: list[str] = []
    predicted: str = "dumped"

    def exists_on(self, arch: str) -> bool:
        """Whether this can be done on that architecture."""
        return not self.archs or arch in self.archs


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the failure table. ``after``: panic, capture, or ended (what became of the machine)."""

    id: str
    after: str
    pattern: str
    what: str
    fix: str


@cache
def _data() -> tuple[Mapping[str, Kind], tuple[Failure, ...]]:
    try:
        data: Any = load_yaml(read_text(FILE), FILE).data
        kinds = msgspec.convert(data["kinds"], list[Kind])
        failures = msgspec.convert(data["failures"], list[Failure])
        for pattern in [*(k.panic for k in kinds), *(f.pattern for f in failures)]:
            re.compile(pattern)
    except (KeyError, TypeError, re.error, msgspec.ValidationError) as error:
        raise KnowledgeError("the shipped table of crashes is broken", where=FILE, why=str(error)) from error
    return {kind.id: kind for kind in kinds}, tuple(failures)


def kinds() -> Mapping[str, Kind]:
    """Every kind by its id, in the order of the file."""
    return _data()[0]


def kind(id: str) -> Kind:
    """One kind. Raises :class:`InvalidInput` for an id that does not exist."""
    known = kinds()
    if id not in known:
        fix = did_you_mean(id, known) or f"one of: {', '.join(known)}"
        raise InvalidInput(f"there is no kind of crash {id!r}", fix=fix)
    return known[id]


def failures() -> tuple[Failure, ...]:
    """The failure table, in order."""
    return _data()[1]


def likely_cause(after_panic: Sequence[str], after_capture: Sequence[str], ended: str) -> Failure | None:
    """The first row that fits: console lines after the panic, those after the capture kernel began, how it ended."""
    texts = {"panic": "\n".join(after_panic), "capture": "\n".join(after_capture), "ended": ended}
    for row in failures():
        if row.id == "silent-capture" and after_capture:
            continue
        if re.search(row.pattern, texts[row.after]):
            return row
    return None
