# SPDX-License-Identifier: Apache-2.0
"""The platform table, loaded and compiled once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from orchestrator.documents.facts import Facts
from orchestrator.errors import InvalidInput, KnowledgeError
from orchestrator.platforms.fields import Getter, getter, outside_signals
from orchestrator.platforms.rows import Condition, Row, Vocabulary, compile_condition, compile_row
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

PLATFORMS = "policies/knowledge/platforms.yaml"
SOURCES = "policies/knowledge/detection_sources.yaml"


@dataclass(frozen=True)
class Choice:
    """An answer with the conditions that all must hold; the first that does is taken."""

    answer: str
    arch: frozenset[str] | None
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Missing:
    """Something whose absence matters: said when ``get`` sees nothing and the other conditions hold."""

    text: str
    get: Getter
    arch: frozenset[str] | None
    roles: frozenset[str] | None
    below: int  # only if no evidence for the hypervisor has at least this rank
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything that the classifier works with, read-only. Compared and hashed by identity."""

    vocabularies: Mapping[str, Vocabulary]
    arches: Mapping[str, str]  # what uname -m says → our name
    personalities: Mapping[str, frozenset[str]]  # arch → what a personality makes uname say of it
    rows: tuple[Row, ...]
    below_roles: frozenset[str]
    below_rank: int
    below_note: str
    lower_leaf_note: str
    confidential_arches: frozenset[str]
    missing: tuple[Missing, ...]
    family_rows: tuple[Choice, ...]
    family_ids: Mapping[str, str]
    family_like: Mapping[str, str]
    boot_rows: tuple[Choice, ...]
    whole_log: bool  # something looks at the kernel log as a whole; otherwise lines that match no row change nothing
    whole_dmi: frozenset[
        str
    ]  # fields of DMI that count whatever they say; of the others only texts that match a row do
    outside_signals: tuple[Callable[[Facts], Any], ...]  # what else is read, but for family and boot stack


def _fields_of(row: Mapping[str, Any]) -> list[str]:
    return list(row["field"]) if isinstance(row["field"], list) else [row["field"]]


def _conditions_of(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*row.get("also", []), *row.get("unless", []), *row.get("when", [])]


def _vocabularies(data: Mapping[str, Any]) -> dict[str, Vocabulary]:
    words: dict[str, list[str]] = {name: list(listed) for name, listed in data["vocabulary"].items()}
    clouds: dict[str, None] = {}
    for row in data["rows"]:
        stated = row["says"].get("cloud", [])
        clouds.update(dict.fromkeys(stated if isinstance(stated, list) else [stated]))
    words["cloud"] = sorted(clouds)  # a new cloud needs its row only
    return {name: Vocabulary(listed) for name, listed in words.items()}


def _choices(rows: list[dict[str, Any]], answer: str) -> tuple[Choice, ...]:
    return tuple(
        Choice(
            str(r[answer]),
            frozenset(r["arch"]) if "arch" in r else None,
            tuple(compile_condition(c) for c in r.get("when", [])),
        )
        for r in rows
    )


def _by_name(groups: Mapping[str, list[str]]) -> dict[str, str]:
    return {name: family for family, names in groups.items() for name in names}


def _fields_read(data: Mapping[str, Any]) -> set[str]:
    """Fields that rows and ``unseen`` look at, by themselves or in a condition, and those that every host is asked for."""
    names = {"distribution.id", "kernel_log.complete", "sysctl.kernel/arch"}
    for row in (*data["rows"], *data["unseen"]):
        names.update(_fields_of(row))
        names.update(condition["field"] for condition in _conditions_of(row))
    return names


_IN_PRODUCTS = frozenset(("sys_vendor", "product_name", "product_version"))


def _conditions_fields(data: Mapping[str, Any]) -> set[str]:
    rows = [*data["rows"], *data["unseen"], *data["families"]["rows"], *data["boot_stacks"]]
    named = {condition["field"] for row in rows for condition in _conditions_of(row)}
    return named | {name for row in data["unseen"] for name in _fields_of(row)}


def _whole_log(data: Mapping[str, Any]) -> bool:
    """Whether the tables ask more of the kernel log than which of its lines match a row."""
    lacking = ("kernel_log" in _fields_of(row) for row in data["rows"] if "lacks" in row)
    entries = (*data["rows"], *data["unseen"])
    conditions = (c for row in entries for c in _conditions_of(row))
    return any(lacking) or any(r["field"] == "kernel_log" for r in (*data["unseen"], *conditions))


def _missing(row: dict[str, Any]) -> Missing:
    return Missing(
        text=row["text"],
        get=getter(row["field"]),
        arch=frozenset(row["arch"]) if "arch" in row else None,
        roles=frozenset(row["roles"]) if "roles" in row else None,
        below=int(row.get("below", 1 << 30)),
        conditions=tuple(compile_condition(c) for c in row.get("when", [])),
    )


def compile_tables(data: Mapping[str, Any], sources: Mapping[str, Any]) -> Tables:
    """Tables from plain data (the YAML file's content). Raises ``KeyError``/``ValueError`` if it does not hold together."""
    vocabularies = _vocabularies(data)
    rows: list[Row] = []
    for index, row in enumerate(data["rows"]):
        if row["ref"] not in sources:
            raise KeyError(f"row {index}: no source {row['ref']!r}")
        rows += [compile_row(index, name, row, vocabularies) for name in _fields_of(row)]
    below = data["below"]
    return Tables(
        vocabularies=vocabularies,
        arches=_by_name(data["arches"]),
        personalities={arch: frozenset(names) for arch, names in data["personalities"].items()},
        rows=tuple(rows),
        below_roles=frozenset(below["roles"]),
        below_rank=int(below["rank"]),
        below_note=below["note"],
        lower_leaf_note=data["lower_leaf"]["note"],
        confidential_arches=frozenset(data["confidential_arches"]),
        missing=tuple(_missing(r) for r in data["unseen"]),
        family_rows=_choices(data["families"]["rows"], "family"),
        family_ids=_by_name(data["families"]["ids"]),
        family_like=_by_name(data["families"]["like"]),
        boot_rows=_choices(data["boot_stacks"], "stack"),
        whole_log=_whole_log(data),
        whole_dmi=_IN_PRODUCTS | {name[4:] for name in _conditions_fields(data) if name.startswith("dmi.")},
        outside_signals=(attrgetter("distribution.version_id"), *outside_signals(_fields_read(data))),
    )


def _compiled(platforms: str, sources: str, name: str, fix: str) -> Tables:
    try:
        listed = load_yaml(sources, SOURCES).data["sources"]
        return compile_tables(load_yaml(platforms, name).data, listed)
    except (KeyError, TypeError, ValueError, AttributeError, re.error, InvalidInput) as e:
        raise KnowledgeError("the platform table does not hold together", where=name, why=str(e), fix=fix) from e


@cache
def load() -> Tables:
    """The shipped tables. Raises :class:`KnowledgeError` if they do not hold together."""
    return _compiled(read_text(PLATFORMS), read_text(SOURCES), PLATFORMS, "install it again")


def load_from(directory: Path) -> Tables:
    """The tables of another knowledge directory, e.g. of an older version. Raises :class:`KnowledgeError`."""
    fix = "give a directory like policies/knowledge of this version"
    try:
        platforms, sources = ((directory / Path(p).name).read_text(encoding="utf-8") for p in (PLATFORMS, SOURCES))
    except (OSError, UnicodeDecodeError) as e:
        raise KnowledgeError("the platform table cannot be read", where=str(directory), why=str(e), fix=fix) from e
    return _compiled(platforms, sources, str(directory / Path(PLATFORMS).name), fix)
