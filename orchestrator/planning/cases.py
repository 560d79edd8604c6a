# SPDX-License-Identifier: Apache-2.0
"""Runs the cases of orchestrator/policy/cases.py: decides, plans where that was asked for, and compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import field

from orchestrator.documents.base import Document
from orchestrator.documents.decision import Clause, Decision
from orchestrator.documents.facts import Facts
from orchestrator.errors import InvalidInput, Problem
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning.expectations import Compare, Difference
from orchestrator.planning.plan import Planner
from orchestrator.platforms.classify import classify
from orchestrator.policy.case_host import Subject, change, describe
from orchestrator.policy.cases import Case, CaseFile, own_entries
from orchestrator.policy.context import Context
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import Override, Rule

_SMALL = 8 << 20  # bytes

#: Reads recorded facts from a path: facts, or what is wrong with one host.
Read = Callable[[str], Iterator[Any]]


class Matched(Document, frozen=True, kw_only=True):
    """A rule held against the host of a case, clause by clause."""

    id: str
    where: str
    what: str  # the rule that decided | the rule that was expected
    matched: bool | None
    clauses: list[Clause]


class CaseResult(Document, frozen=True, kw_only=True):
    """One case: pass, fail or skip."""

    name: str
    where: str
    result: str
    reason: str = ""  # why it was skipped
    differences: list[Difference] = field(default_factory=list)
    rules: list[Matched] = field(default_factory=list)  # only of a case that failed


class FileResult(Document, frozen=True, kw_only=True):
    """One file of cases."""

    file: str
    policy: str
    cases: list[CaseResult]

    def count(self, result: str) -> int:
        """Cases with that result."""
        return sum(c.result == result for c in self.cases)


class Uncovered(Document, frozen=True, kw_only=True):
    """A rule or an override that decided nothing in any case."""

    kind: str
    id: str
    where: str
    policy: str


@dataclass
class _Coverage:
    entries: dict[str, Uncovered]  # by where it is written
    hit: set[str]


class Runner:
    """Runs files of cases and remembers what of their policies they have reached."""

    def __init__(self, knowledge: Knowledge, read: Read) -> None:
        self._knowledge = knowledge
        self._read = read
        self._coverage = _Coverage({}, set())
        self._recordings: dict[Path, list[Any]] = {}

    def run(self, file: CaseFile) -> FileResult:
        """All cases of a file. Raises :class:`InvalidInput` if a host cannot be made of one."""
        subjects: list[Subject | None] = []
        problems: list[Problem] = []
        for case in file.cases:
            try:
                subjects.append(None if case.skip else self._subject(file, case))
            except InvalidInput as e:
                problems += e.problems
        if problems:
            raise InvalidInput(problems)
        for entry in own_entries(file.policy):
            kind = "override" if isinstance(entry, Override) else "rule"
            self._coverage.entries.setdefault(
                entry.where, Uncovered(kind=kind, id=entry.id, where=entry.where, policy=file.policy.name)
            )
        deciders: dict[tuple[tuple[str, bool], ...], tuple[Decider, Planner]] = {}
        results = []
        for case, subject in zip(file.cases, subjects, strict=True):
            where = file.where(case)
            if subject is None:
                results.append(CaseResult(name=case.name, where=where, result="skip", reason=case.skip))
                continue
            key = tuple(sorted(subject.features.items()))
            if key not in deciders:
                known = _forced(self._knowledge, dict(key))
                deciders[key] = Decider(file.policy, known), Planner(known)
            results.append(self._case(file, case, subject, *deciders[key]))
        return FileResult(file=file.name, policy=file.policy.name, cases=results)

    def uncovered(self) -> list[Uncovered]:
        """Rules and overrides that no case has hit, in the order in which they were met."""
        return [entry for where, entry in self._coverage.entries.items() if where not in self._coverage.hit]

    def counted(self) -> tuple[int, int]:
        """Entries that were hit, and all there are."""
        return len(self._coverage.entries) - len(self.uncovered()), len(self._coverage.entries)

    def _subject(self, file: CaseFile, case: Case) -> Subject:
        try:
            described = "host" in case.data
            subject = describe(case.data["host"], self._knowledge) if described else self._recorded(file, case)
        except InvalidInput as e:
            raise _at(e, file.where(case, "host" if "host" in case.data else "facts")) from None
        try:
            return replace(subject, facts=change(subject.facts, case.data.get("set", {})))
        except InvalidInput as e:
            raise _at(e, file.where(case, "set", e.problems[0].id, key=True)) from None

    def _recorded(self, file: CaseFile, case: Case) -> Subject:
        text = case.data["facts"]
        path, host = file.folder / text, ""
        if not path.is_file() and "#" in text:
            name, _, host = text.rpartition("#")
            path = file.folder / name
        if not path.is_file():
            raise InvalidInput(
                "there are no such recorded facts", why=str(path), fix="the path is relative to this file"
            )
        found: Facts | None = None
        names = []
        for item in self._hosts(path):
            names.append(item.host)
            if host and item.host != host:
                continue
            if not isinstance(item, Facts):
                raise InvalidInput(f"the recorded facts cannot be used: {item.what}", why=item.why, fix=item.fix)
            if found is not None:
                fix = f"name one: {case.data['facts']}#{found.host}"
                raise InvalidInput("the recorded facts hold more than one host", fix=fix)
            found = item
            if host:
                break
        if found is None:
            raise InvalidInput(f"there is no host {host[:80]!r} in {path}", fix=f"known: {', '.join(names[:10])}")
        return Subject(found)

    def _hosts(self, path: Path) -> Iterable[Any]:
        """The hosts of a recording. Small ones are kept: many cases are about hosts of the same file."""
        if path.stat().st_size > _SMALL:
            return self._read(str(path))
        if path not in self._recordings:
            self._recordings[path] = list(self._read(str(path)))
        return self._recordings[path]

    def _case(self, file: CaseFile, case: Case, subject: Subject, decider: Decider, planner: Planner) -> CaseResult:
        facts = subject.facts
        platform = subject.platform or classify(facts)
        decision = decider.explained(facts, platform)
        self._coverage.hit.add(decision.rule_where)
        self._coverage.hit |= {o.where for o in file.policy.overrides if o.id in decision.overrides}
        differences = Compare(file, case, facts, platform, decision, planner).all()
        rules: list[Matched] = []
        if differences:
            rules = _clauses(file, case, decision, Context(facts, platform, decider.knowledge.features))
        where, result = file.where(case), "fail" if differences else "pass"
        return CaseResult(name=case.name, where=where, result=result, differences=differences, rules=rules)


def _at(error: InvalidInput, where: str) -> InvalidInput:
    return InvalidInput(
        [Problem(p.what, where, ": ".join(x for x in (p.where, p.why) if x), p.fix, "T003") for p in error.problems]
    )


def _forced(knowledge: Knowledge, answers: dict[str, bool]) -> Knowledge:
    """The knowledge with the answers of some probes fixed."""
    if not answers:
        return knowledge

    def always(answer: bool) -> Callable[[Facts], bool | None]:
        return lambda _facts: answer

    return replace(knowledge, features={**knowledge.features, **{n: always(a) for n, a in answers.items()}})


def _clauses(file: CaseFile, case: Case, decision: Decision, context: Context) -> list[Matched]:
    """The rule that decided, and the one that was expected where that is another one."""
    wanted = case.expect.get("rule", decision.rule)
    out = []
    for rule in file.policy.rules:
        if rule.id in (decision.rule, wanted):
            out.append(_held(rule, context, decided=rule.id == decision.rule))
    for override in file.policy.overrides:
        named = override.id in case.expect.get("overrides", [])
        if (override.id in decision.overrides) != named and "overrides" in case.expect:
            out.append(_held(override, context, decided=not named))
    return out


def _held(entry: Rule | Override, context: Context, decided: bool) -> Matched:
    return Matched(
        id=entry.id,
        where=entry.where,
        what="applied" if decided else "expected",
        matched=entry.match.test(context),
        clauses=entry.match.explain(context).parts,
    )
