# SPDX-License-Identifier: Apache-2.0
"""From policy files to a compiled policy: meaning is checked here, shape before (schema.py), reach afterwards (lint.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.crashkernel import parse as parse_crashkernel
from orchestrator.documents.base import digest
from orchestrator.errors import InvalidInput, PolicyError, Problem
from orchestrator.knowledge.load import Knowledge
from orchestrator.policy.compose import (
    Composed,
    Entry,
    PolicyFile,
    Verify,
    compose,
    display,
    locate,
    merge,
    parse_file,
    read_bytes,
    read_file,
    read_tree,
)
from orchestrator.policy.match import Matcher, compile_match
from orchestrator.resources import data_path
from orchestrator.yamlmarks import Path as YamlPath


@dataclass(frozen=True)
class Rule:
    """One rule, compiled. Exactly one of ``strategy``, ``refuse`` and ``disable`` is not empty."""

    id: str
    where: str
    match: Matcher
    why: str
    strategy: tuple[str, ...]
    refuse: str
    disable: str
    level: str
    settings: Mapping[str, Any]
    path: YamlPath
    source: Mapping[str, Any]  # the match as it is written, for reasoning about the policy
    file: PolicyFile

    def at(self, *path: str | int) -> str:
        """``file:line:col`` of a part of the rule."""
        return self.file.marked.where((*self.path, *path))


@dataclass(frozen=True)
class Override:
    """Changes on top of whatever rule was chosen. ``level`` is empty where it does not change it."""

    id: str
    where: str
    match: Matcher
    why: str
    level: str
    settings: Mapping[str, Any]
    path: YamlPath
    source: Mapping[str, Any]
    file: PolicyFile

    def at(self, *path: str | int) -> str:
        """``file:line:col`` of a part of the override."""
        return self.file.marked.where((*self.path, *path))


@dataclass(frozen=True)
class Policy:
    """A policy that has passed every check of its own text. The last rule is the default and matches every host.

    ``signers`` names who signed which file; it is empty unless signatures were asked for.
    """

    name: str
    file: str
    hash: str
    rules: tuple[Rule, ...]
    overrides: tuple[Override, ...] = ()
    rollout: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[PolicyFile, ...] = ()

    @property
    def signers(self) -> list[str]:
        """``file: signer`` of every signed file, weakest first."""
        return [f"{f.name}: {f.signer}" for f in self.files if f.signer]


def default_path() -> Path:
    """The shipped policy."""
    return data_path("policies/default.yaml")


def _check_reservation(wish: Mapping[str, Any], entry: Entry, path: YamlPath, knowledge: Knowledge) -> list[Problem]:
    where = entry.file.marked.where((*path, "reservation", "crashkernel"))
    problems = []
    given = wish.get("crashkernel", [])
    for text in [given] if isinstance(given, str) else given:
        try:
            parse_crashkernel(text)
        except InvalidInput as e:
            p = e.problems[0]
            problems.append(Problem(p.what, where, p.why or "the kernel would reserve nothing", p.fix, "P010"))
    if "table" in wish and wish["table"] not in knowledge.sizer.names:
        where = entry.file.marked.where((*path, "reservation", "table"))
        what = f"there is no table {wish['table']!r}"
        known = ", ".join(sorted(knowledge.sizer.names))
        problems.append(Problem(what, where, "tables are part of the knowledge data", f"one of: {known}", "P018"))
    return problems


def _check_settings(settings: Mapping[str, Any], entry: Entry, path: YamlPath, knowledge: Knowledge) -> list[Problem]:
    marked = entry.file.marked
    problems = _check_reservation(settings.get("reservation", {}), entry, path, knowledge)
    capture = settings.get("capture", {})
    keys: dict[str, str] = {}
    for index, argument in enumerate(capture.get("ensure", [])):
        key = argument.split("=", 1)[0]
        where = marked.where((*path, "capture", "ensure", index))
        if key in keys:
            what = f"capture.ensure names {key!r} twice"
            problems.append(Problem(what, where, "one argument can have one value", "keep one", "P011"))
        keys[key] = argument
        if why := knowledge.never.get(argument) or knowledge.never.get(key):
            problems.append(Problem(f"capture.ensure must not have {argument!r}", where, why, "remove it", "P012"))
    for index, key in enumerate(capture.get("remove", [])):
        if key in keys or key in keys.values():
            where = marked.where((*path, "capture", "remove", index))
            what = f"{key!r} is both ensured and removed"
            problems.append(Problem(what, where, "the two contradict each other", "keep one", "P013"))
    return problems


class _Compiler:
    """Entries to rules and overrides, with everything that is wrong with them."""

    def __init__(self, composed: Composed, knowledge: Knowledge) -> None:
        self.composed = composed
        self.knowledge = knowledge
        self.problems: list[Problem] = []
        self._ids: dict[str, str] = {}
        for file in composed.files:
            entry = Entry(file, ("spec",), file.spec)
            self.problems += _check_settings(file.spec.get("settings", {}), entry, ("spec", "settings"), knowledge)

    def _match(self, entry: Entry) -> Matcher | None:
        id = entry.data["id"]
        if id in self._ids:
            fix = "rename one; or say `replace: true` to take the place of an inherited rule"
            what = f"the id {id!r} stands twice"
            self.problems.append(Problem(what, entry.where, f"the other is at {self._ids[id]}", fix, "P014"))
        self._ids[id] = entry.where
        own = entry.data.get("settings", {})
        self.problems += _check_settings(own, entry, (*entry.path, "settings"), self.knowledge)
        try:
            where = entry.file.marked.where((*entry.path, "match"))
            return compile_match(entry.data["match"], self.knowledge.features, where)
        except InvalidInput as e:
            self.problems += [Problem(p.what, p.where, p.why, p.fix, "P015") for p in e.problems]
            return None

    def rule(self, entry: Entry) -> Rule | None:
        match, data = self._match(entry), entry.data
        if match is None:
            return None
        return Rule(
            id=data["id"],
            where=entry.where,
            match=match,
            why=data.get("why", ""),
            strategy=tuple(data.get("strategy", ())),
            refuse=data.get("refuse", ""),
            disable=data.get("disable", ""),
            level=data.get("level", "enforce"),
            settings=merge(self.composed.settings, data.get("settings", {})),
            path=entry.path,
            source=data["match"],
            file=entry.file,
        )

    def override(self, entry: Entry) -> Override | None:
        match, data = self._match(entry), entry.data
        if match is None:
            return None
        return Override(
            id=data["id"],
            where=entry.where,
            match=match,
            why=data.get("why", ""),
            level=data.get("level", ""),
            settings=data.get("settings", {}),
            path=entry.path,
            source=data["match"],
            file=entry.file,
        )


def _compile(files: list[PolicyFile], knowledge: Knowledge) -> Policy:
    top = files[-1]
    composed = compose(files)
    if composed.default is None:
        raise PolicyError(
            "there is no default",
            where=top.marked.where(("spec",)),
            why="neither this policy nor one that it extends says what holds for a host that no rule matches",
            fix="add default:",
            id="P003",
        )
    compiler = _Compiler(composed, knowledge)
    rules = [compiler.rule(e) for e in [*composed.rules, composed.default]]
    overrides = [compiler.override(e) for e in composed.overrides]
    if compiler.problems:
        raise PolicyError(compiler.problems)
    return Policy(
        name=top.marked.data["metadata"]["name"],
        file=top.name,
        hash=digest([[f.marked.data for f in files], knowledge.hash]),
        rules=tuple(r for r in rules if r),
        overrides=tuple(o for o in overrides if o),
        rollout=composed.rollout,
        files=tuple(files),
    )


def compiled(files: list[PolicyFile], knowledge: Knowledge) -> Policy:
    """A policy from files that were read and shaped already, weakest first. Raises :class:`PolicyError`."""
    return _compile(files, knowledge)


def parse(text: str, name: str, knowledge: Knowledge, beside: Path | None = None) -> Policy:
    """Check and compile a policy. Raises :class:`PolicyError` with everything that is wrong."""
    return _compile(read_tree(parse_file(text, name), beside or Path()), knowledge)


def load(path: str | Path, knowledge: Knowledge, verify: Verify | None = None) -> Policy:
    """Read a policy: a file, or the name of a shipped one. Raises :class:`PolicyError`."""
    file = locate(str(path))
    real = file.resolve()
    data = read_bytes(real)
    return _compile(read_tree(read_file(file, data, verify, real), file.parent, verify), knowledge)


__all__ = ["Override", "Policy", "Rule", "compiled", "default_path", "display", "load", "parse"]
