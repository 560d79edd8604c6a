# SPDX-License-Identifier: Apache-2.0
"""Tests of a policy: files of cases, read and checked. What cannot ever hold is an error of the file, with a suggestion.

They are run by orchestrator/planning/cases.py.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import InvalidInput, Problem
from orchestrator.knowledge.load import Knowledge
from orchestrator.policy.compose import decode, display, locate, read_bytes, shipped
from orchestrator.policy.load import Override, Policy, Rule
from orchestrator.policy.load import load as load_policy
from orchestrator.policy.schema import check_schema
from orchestrator.resources import data_path
from orchestrator.yamlmarks import Marked
from orchestrator.yamlmarks import Path as YamlPath
from orchestrator.yamlmarks import load as load_yaml

MANUAL = "docs/testing-policies.md"
_MAX_PROBLEMS = 50  # of one file; a file that is something else altogether would have thousands


@dataclass(frozen=True)
class Case:
    """One host and what must be decided for it."""

    name: str
    path: YamlPath
    data: Mapping[str, Any]

    @property
    def expect(self) -> Mapping[str, Any]:
        """What must hold."""
        found: Mapping[str, Any] = self.data["expect"]
        return found

    @property
    def skip(self) -> str:
        """Why it is not run; empty where it is."""
        return str(self.data.get("skip", ""))


@dataclass(frozen=True)
class CaseFile:
    """A file of cases with the policy that they are about."""

    name: str
    folder: Path
    marked: Marked
    policy: Policy
    cases: tuple[Case, ...]

    def where(self, case: Case, *path: str | int, key: bool = False) -> str:
        """``file:line:col`` of a part of a case."""
        return self.marked.where((*case.path, *path), key=key)


def shipped_tests() -> list[Path]:
    """The tests of the shipped policies."""
    return sorted(data_path("policies/tests").glob("*.yaml"))


def load_cases(path: Path, knowledge: Knowledge) -> CaseFile:
    """Read a file of cases and its policy. Raises :class:`InvalidInput` with everything that is wrong with either."""
    name = display(path)
    text = decode(read_bytes(path, "policy test"), name, "policy test")
    marked = load_yaml(text, name)
    _raise(check_schema(marked, "policy-test", MANUAL))
    policy = _policy(marked, path.parent, knowledge)
    entries = marked.data["spec"]["cases"]
    cases = tuple(Case(entry["name"], ("spec", "cases", i), entry) for i, entry in enumerate(entries))
    file = CaseFile(name, path.parent, marked, policy, cases)
    _raise([p for case in cases for p in _check(file, case, knowledge)] + _twice(file))
    return file


def _raise(problems: list[Problem]) -> None:
    if len(problems) > _MAX_PROBLEMS:
        more = len(problems) - _MAX_PROBLEMS
        problems = [*problems[:_MAX_PROBLEMS], Problem(f"… and {more} more", problems[0].where, fix=f"see {MANUAL}")]
    if problems:
        raise InvalidInput(problems)


def _policy(marked: Marked, folder: Path, knowledge: Knowledge) -> Policy:
    text = marked.data["spec"]["policy"]
    try:
        path = locate(text, folder)
        if path.suffix in (".yaml", ".yml"):  # messages say policies/p.yaml, not policies/tests/../p.yaml
            path = Path(os.path.normpath(path))
        return load_policy(path, knowledge)
    except InvalidInput as e:
        here = marked.where(("spec", "policy"))
        if any(p.where.count(":") > 1 for p in e.problems):  # it says itself where it is wrong
            raise
        p = e.problems[0]
        raise InvalidInput(p.what, where=here, why=p.where or p.why, fix=p.fix, id=p.id) from None


def _twice(file: CaseFile) -> list[Problem]:
    first: dict[str, str] = {}
    out = []
    for case in file.cases:
        here = file.where(case, "name")
        if case.name in first:
            why = f"the other is at {first[case.name]}"
            out.append(Problem(f"the case {case.name!r} stands twice", here, why, "name it otherwise", "T002"))
        first.setdefault(case.name, here)
    return out


def unknown(what: str, name: str, known: Collection[str], where: str, of: str) -> Problem:
    """A name that does not exist, with the nearest one that does."""
    close = [k for k in sorted(known) if name and k.startswith(name)][:3] or difflib.get_close_matches(name, known, n=3)
    listed = ", ".join(sorted(known)[:40])
    fix = (
        f"did you mean {' or '.join(map(repr, close))}?"
        if close
        else f"known: {listed}"
        if listed
        else f"{of} has none"
    )
    return Problem(f"there is no {what} {name[:80]!r}", where, f"{of} has no such {what}", fix, "T001")


def _check(file: CaseFile, case: Case, knowledge: Knowledge) -> Iterator[Problem]:
    """Names that neither the policy nor the knowledge data has."""
    policy, expect, of = file.policy, case.expect, f"the policy {file.policy.name!r}"
    rules, overrides = {r.id for r in policy.rules}, {o.id for o in policy.overrides}
    if "rule" in expect and expect["rule"] not in rules:
        yield unknown("rule", expect["rule"], rules, file.where(case, "expect", "rule"), of)
    for i, id in enumerate(expect.get("overrides", [])):
        if id not in overrides:
            yield unknown("override", id, overrides, file.where(case, "expect", "overrides", i), of)
    rows = {row.id for row in (*knowledge.rows, *knowledge.guards)}
    for i, id in enumerate(expect.get("knowledge", [])):
        if id not in rows:
            where = file.where(case, "expect", "knowledge", i)
            yield unknown("row", id, rows, where, "the knowledge data")
    reasons = rows | rules | {limit.id for limit in knowledge.limits}
    for i, id in enumerate(expect.get("refusals", [])):
        if id not in reasons:
            yield unknown("refusal", id, reasons, file.where(case, "expect", "refusals", i), "policy and knowledge")
    for name in case.data.get("host", {}).get("features", {}):
        if name not in knowledge.features:
            where = file.where(case, "host", "features", name, key=True)
            yield unknown("feature", name, list(knowledge.features), where, "the knowledge data")


def own_entries(policy: Policy) -> list[Rule | Override]:
    """The rules and overrides that the tests of this policy answer for: not those of shipped ones that it builds on."""
    foreign = {display(p) for p in shipped().values()} - {policy.file}
    entries: list[Rule | Override] = [*policy.rules, *policy.overrides]
    return [e for e in entries if e.file.name not in foreign]
