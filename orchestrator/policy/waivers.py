# SPDX-License-Identifier: Apache-2.0
"""Exceptions that somebody has approved for a time. Pure: the day is a parameter.

A waiver is about one check, or about one rule of the policy or one refusal. Expired, it waives nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from orchestrator.errors import InvalidInput, PolicyError, Problem
from orchestrator.knowledge.load import Knowledge
from orchestrator.policy.compose import Verify, decode, read_bytes
from orchestrator.policy.context import View
from orchestrator.policy.load import Policy
from orchestrator.policy.match import Matcher, compile_match
from orchestrator.policy.schema import check_schema
from orchestrator.yamlmarks import Marked
from orchestrator.yamlmarks import Path as YamlPath
from orchestrator.yamlmarks import load as load_yaml

SOON = 30  # days
_LONG = 366


@dataclass(frozen=True)
class Waiver:
    """One exception. Exactly one of ``check`` and ``rule`` is not empty; ``expires`` is the last day on which it counts."""

    id: str
    check: str
    rule: str
    hosts: Matcher
    justification: str
    approver: str
    expires: date
    where: str

    def state(self, today: date) -> str:
        """valid | soon (it ends within 30 days) | expired."""
        if self.expires < today:
            return "expired"
        return "soon" if self.expires <= today + timedelta(days=SOON) else "valid"


class Waivers:
    """The waivers of a run, on one day. Notes which of them were of use."""

    def __init__(self, waivers: Sequence[Waiver], today: date) -> None:
        self.all = tuple(waivers)
        self.today = today
        self._used: set[str] = set()

    def find(self, view: View, *, checks: Iterable[str] = (), rules: Iterable[str] = ()) -> Waiver | None:
        """The waiver for any of these checks or rules on this host; one that counts before one that is expired."""
        named, ruled = set(checks), set(rules)
        found = [w for w in self.all if (w.check in named or w.rule in ruled) and w.hosts.test(view) is True]
        self._used |= {w.id for w in found}
        return max(found, key=lambda w: w.expires, default=None)

    def counts(self, waiver: Waiver) -> bool:
        """Whether it is not expired."""
        return waiver.expires >= self.today

    def unused(self) -> list[Waiver]:
        """Waivers that no finding of this run was about."""
        return [w for w in self.all if w.id not in self._used]


def _known(word: str, known: Iterable[str], what: str) -> tuple[str, str] | None:
    names = sorted(known)
    if word in names:
        return None
    close = difflib.get_close_matches(word, names, n=1)
    fix = f"did you mean {close[0]!r}?" if close else "see docs/checks.md" if what == "check" else "see kdo explain"
    return f"there is no {what} {word!r}", fix


def rule_ids(policy: Policy | None, knowledge: Knowledge) -> set[str]:
    """Every id that a refusal or a decision can name."""
    found = {r.id for r in (*knowledge.rows, *knowledge.guards)} | {limit.id for limit in knowledge.limits}
    found |= {"G5", "reservation", "boot-unknown", "file-unreadable", "unsupported"}
    return found | ({r.id for r in policy.rules} | {o.id for o in policy.overrides} if policy is not None else set())


class _Reader:
    def __init__(self, marked: Marked, knowledge: Knowledge, checks: Iterable[str], policy: Policy | None) -> None:
        self.marked, self.knowledge = marked, knowledge
        self.checks, self.rules = set(checks), rule_ids(policy, knowledge)
        self.strict = policy is not None  # without a policy its rules cannot be known
        self.problems: list[Problem] = []

    def problem(self, id: str, path: YamlPath, what: str, why: str, fix: str) -> None:
        self.problems.append(Problem(what, self.marked.where(path), why, fix, id))

    def read(self) -> list[Waiver]:
        out: list[Waiver] = []
        seen: dict[str, str] = {}
        for index, data in enumerate(self.marked.data["spec"]["waivers"]):
            path: YamlPath = ("spec", "waivers", index)
            if data["id"] in seen:
                self.problem("W002", (*path, "id"), f"the id {data['id']!r} stands twice", f"the other is at {seen[data['id']]}", "rename one")  # fmt: skip
            seen[data["id"]] = self.marked.where((*path, "id"))
            if "check" in data and (wrong := _known(data["check"], self.checks, "check")):
                self.problem("W003", (*path, "check"), wrong[0], "a waiver names a check by its id", wrong[1])
            if "rule" in data and self.strict and (wrong := _known(data["rule"], self.rules, "rule or refusal")):
                self.problem("W004", (*path, "rule"), wrong[0], "neither the policy nor the knowledge data has it", wrong[1])  # fmt: skip
            try:
                expires = date.fromisoformat(data["expires"])
            except ValueError as e:
                self.problem("W005", (*path, "expires"), f"{data['expires']!r} is not a day", str(e), "e.g. 2027-03-31")
                continue
            if match := self._match(data["hosts"], (*path, "hosts")):
                out.append(Waiver(data["id"], data.get("check", ""), data.get("rule", ""), match, data["justification"], data["approver"], expires, self.marked.where(path)))  # fmt: skip
        return out

    def _match(self, hosts: object, path: YamlPath) -> Matcher | None:
        # The shape of a match is in the policy's schema; a policy of one rule has it checked there.
        shell = {
            "apiVersion": "kdump-orchestrator/v1",
            "kind": "Policy",
            "metadata": {"name": "x"},
            "spec": {"default": {"refuse": "x"}, "rules": [{"id": "x", "match": hosts, "refuse": "x"}]},
        }
        keys = {("spec", "rules", 0, "match", *p[len(path) :]): m for p, m in self.marked.keys.items() if p[: len(path)] == path}  # fmt: skip
        values = {("spec", "rules", 0, "match", *p[len(path) :]): m for p, m in self.marked.values.items() if p[: len(path)] == path}  # fmt: skip
        problems = check_schema(Marked(shell, self.marked.name, values, keys))
        if problems:
            self.problems += problems
            return None
        try:
            return compile_match(hosts, self.knowledge.features, self.marked.where(path))  # type: ignore[arg-type]
        except InvalidInput as e:
            self.problems += e.problems
            return None


def parse(
    text: str, name: str, knowledge: Knowledge, checks: Iterable[str], policy: Policy | None = None
) -> list[Waiver]:
    """Check and compile. ``checks``: ids of all checks. Raises :class:`PolicyError` with everything that is wrong."""
    try:
        marked = load_yaml(text, name)
    except InvalidInput as e:
        raise PolicyError([Problem(p.what, p.where, p.why, p.fix, "W001") for p in e.problems]) from None
    if problems := check_schema(marked, "waivers", "docs/waivers.md"):
        raise PolicyError(problems)
    reader = _Reader(marked, knowledge, checks, policy)
    found = reader.read()
    if reader.problems:
        raise PolicyError(reader.problems)
    return found


def load(
    path: str, knowledge: Knowledge, checks: Iterable[str], policy: Policy | None = None, verify: Verify | None = None
) -> list[Waiver]:
    """Read a file of waivers. Raises :class:`PolicyError`."""
    data = read_bytes(Path(path), "waivers file")
    if verify is not None:
        verify(Path(path), data)
    return parse(decode(data, path, "waivers file"), path, knowledge, checks, policy)


def doubts(waivers: Iterable[Waiver], today: date) -> list[Problem]:
    """Warnings: waivers that last very long."""
    return [
        Problem(f"waiver {w.id!r} lasts until {w.expires}", w.where, "an exception of more than a year is seldom looked at again", "choose an earlier day", "W006", "warning")
        for w in waivers
        if w.expires > today + timedelta(days=_LONG)
    ]  # fmt: skip
