# SPDX-License-Identifier: Apache-2.0
"""Exceptions that somebody has approved for a time. Pure: the day is a parameter.

A waiver is about one check, about one rule of the policy or one refusal, or about one control. Expired, it waives nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from orchestrator.errors import InvalidInput, PolicyError, Problem, did_you_mean
from orchestrator.knowledge.controls import controls as all_controls
from orchestrator.knowledge.load import Knowledge
from orchestrator.policy.compose import PolicyFile, Verify, decode, read_bytes
from orchestrator.policy.context import Cell, View
from orchestrator.policy.load import Override, Policy
from orchestrator.policy.match import Matcher, compile_match
from orchestrator.policy.schema import check_schema
from orchestrator.policy.space import Space, Undecided
from orchestrator.yamlmarks import Marked
from orchestrator.yamlmarks import Path as YamlPath
from orchestrator.yamlmarks import load as load_yaml

SOON = 30  # days
_LONG = 366
_SHORTEST = 10  # characters of a justification, as in the schema
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_SHELL = ("spec", "rules", 0, "match")  # where the hosts of a waiver stand while the policy's schema looks at them


@dataclass(frozen=True)
class Waiver:
    """One exception. Exactly one of ``check``, ``rule`` and ``control`` is not empty; ``expires`` is the last day on which it counts."""

    id: str
    check: str
    rule: str
    hosts: Matcher
    justification: str
    approver: str
    expires: date
    where: str
    source: Mapping[str, Any]  # the hosts as they are written
    file: PolicyFile
    control: str = ""

    @property
    def about(self) -> str:
        """What is waived, for people."""
        return next(f"{k} {v}" for k, v in (("check", self.check), ("rule", self.rule), ("control", self.control)) if v)

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

    def find(
        self, view: View, *, checks: Iterable[str] = (), rules: Iterable[str] = (), controls: Iterable[str] = ()
    ) -> Waiver | None:
        """The waiver for any of these on this host; one that counts before one that is expired."""
        named, ruled, asked = set(checks), set(rules), set(controls)
        about = [w for w in self.all if w.check in named or w.rule in ruled or w.control in asked]
        found = [w for w in about if w.hosts.test(view) is True]
        self._used |= {w.id for w in found}
        return max(found, key=lambda w: w.expires, default=None)

    def counts(self, waiver: Waiver) -> bool:
        """Whether it is not expired."""
        return waiver.expires >= self.today

    def unused(self) -> list[Waiver]:
        """Waivers that no finding of this run was about."""
        return [w for w in self.all if w.id not in self._used]

    def signed(self, policy: Policy) -> Policy:
        """The same policy, naming also who has signed the waivers: the header of a plan says on whose word it stands."""
        files = {id(w.file): w.file for w in self.all}
        return replace(policy, files=(*policy.files, *files.values()))


#: Refusals that only planning finds; no data file defines them, and no verdict names them.
PLANNING = frozenset({"G5", "boot-unknown", "file-unreadable"})


def rule_ids(policy: Policy | None, knowledge: Knowledge) -> set[str]:
    """Every id that a refusal can have, or the rule that takes a host."""
    found = {r.id for r in (*knowledge.rows, *knowledge.guards)} | {limit.id for limit in knowledge.limits}
    return found | PLANNING | {"reservation"} | ({r.id for r in policy.rules} if policy is not None else set())


class _Reader:
    def __init__(self, file: PolicyFile, knowledge: Knowledge, checks: Iterable[str], policy: Policy | None) -> None:
        self.file, self.marked = file, file.marked
        self.knowledge, self.policy = knowledge, policy
        self.checks, self.rules = set(checks), rule_ids(policy, knowledge)
        self.problems: list[Problem] = []

    def problem(self, id: str, path: YamlPath, what: str, why: str, fix: str) -> None:
        self.problems.append(Problem(what, self.marked.where(path), why, fix, id))

    def read(self) -> list[Waiver]:
        out: list[Waiver] = []
        seen: dict[str, str] = {}
        for index, data in enumerate(self.marked.data["spec"]["waivers"]):
            path: YamlPath = ("spec", "waivers", index)
            if data["id"] in seen:
                what, why = f"the id {data['id']!r} stands twice", f"the other is at {seen[data['id']]}"
                self.problem("W002", (*path, "id"), what, why, "rename one")
            seen[data["id"]] = self.marked.where((*path, "id"))
            self._about(data, path)
            expires = self._day(data["expires"], (*path, "expires"))
            # Text of several lines is one line wherever a waiver is shown.
            why, who = (" ".join(data[key].split()) for key in ("justification", "approver"))
            if len(why) < _SHORTEST or not who:
                key = "approver" if not who else "justification"
                what = f"the {key} says nothing"
                self.problem("W010", (*path, key), what, "it is there for whoever looks at the waiver", "say it")
            hosts = self._match(data["hosts"], (*path, "hosts"))
            if expires is not None and hosts is not None:
                where, about = self.marked.where(path), (data.get("check", ""), data.get("rule", ""))
                control = data.get("control", "")
                out.append(
                    Waiver(data["id"], *about, hosts, why, who, expires, where, data["hosts"], self.file, control)
                )
        self._impossible(out)
        return out

    def _about(self, data: Mapping[str, Any], path: YamlPath) -> None:
        """The check or rule must be there: a waiver with a misspelt one would silently waive nothing."""
        if (check := data.get("check")) is not None and check not in self.checks:
            fix = did_you_mean(check, sorted(self.checks)) or "see docs/checks.md"
            if check in self.rules:
                fix = f"it is a rule or a refusal: write rule: {check}"
            self.problem("W003", (*path, "check"), f"there is no check {check!r}", "checks are named by their ids", fix)
        known = [c.id for c in all_controls().controls]
        if (control := data.get("control")) is not None and control not in known:
            fix = did_you_mean(control, known) or f"known here: {', '.join(known)}"
            what = f"there is no control {control!r}"
            self.problem("W012", (*path, "control"), what, "controls are named by their ids (docs/compliance.md)", fix)
        if (rule := data.get("rule")) is None or self.policy is None or rule in self.rules:
            return
        what, where = f"there is no rule or refusal {rule!r}", (*path, "rule")
        if rule in {o.id for o in self.policy.overrides}:
            why = "it is an override: it changes settings of a rule, it takes no host"
            self.problem("W004", where, what, why, "name the rule that takes the host: kdo explain HOST")
            return
        why = f"neither the policy {self.policy.name!r} nor the knowledge data has it"
        fix = (
            did_you_mean(rule, sorted(self.rules))
            or "kdo explain HOST shows the ids; of another policy: name it with -p"
        )
        if rule in self.checks:
            fix = f"it is a check: write check: {rule}"
        self.problem("W004", where, what, why, fix)

    def _day(self, text: str, path: YamlPath) -> date | None:
        try:
            if not _DAY.match(text):
                raise ValueError("a day is written as YYYY-MM-DD")
            return date.fromisoformat(text)
        except ValueError as e:
            self.problem("W005", path, f"{text!r} is not a day", str(e), "e.g. 2027-03-31")
            return None

    def _match(self, hosts: Mapping[str, Any], path: YamlPath) -> Matcher | None:
        # The shape of a match is in the policy's schema; a policy of one rule has it checked there.
        shell = {
            "apiVersion": "kdump-orchestrator/v1",
            "kind": "Policy",
            "metadata": {"name": "x"},
            "spec": {"default": {"refuse": "x"}, "rules": [{"id": "x", "match": hosts, "refuse": "x"}]},
        }
        n = len(path)
        keys = {(*_SHELL, *p[n:]): m for p, m in self.marked.keys.items() if p[:n] == path}
        values = {(*_SHELL, *p[n:]): m for p, m in self.marked.values.items() if p[:n] == path}
        problems = check_schema(Marked(shell, self.marked.name, values, keys))
        if problems:
            there, here = (".".join(str(step) for step in p) for p in (_SHELL, path))
            self.problems += [replace(p, what=p.what.replace(there, here, 1)) for p in problems]
            return None
        try:
            match = compile_match(hosts, self.knowledge.features, self.marked.where(path))
        except InvalidInput as e:
            self.problems += [replace(p, id="W007") for p in e.problems]
            return None
        # True of a host of which nothing is known: it asks nothing.
        if match.test(Cell({})) is True:
            why = "a waiver must say which hosts it is for; this match holds for whatever host there is"
            self.problem("W008", path, "hosts asks nothing", why, 'name them; every host is {host: "*"}')
            return None
        return match

    def _impossible(self, waivers: Sequence[Waiver]) -> None:
        """Matches that contradict themselves, or the world: such a waiver can never be of use."""
        if not waivers:
            return
        # Overrides are asked only for their matches; numbers, because the waivers' own ids may be wrong as yet.
        places = [
            Override(str(n), w.where, w.hosts, "", "", {}, (), w.source, self.file) for n, w in enumerate(waivers)
        ]
        space = Space(places, self.knowledge)
        for place, waiver in zip(places, waivers, strict=True):
            try:
                if place.id in space.unclear or space.possible(place) is not None:
                    continue
                why = "; ".join(dict.fromkeys(space.obstacles(place))) or "its clauses contradict each other"
            except Undecided:
                continue
            what = f"waiver {waiver.id!r} is for hosts that cannot be"
            self.problems.append(Problem(what, waiver.where, f"no host is like that: {why}", "mend its hosts", "W009"))


def parse(
    text: str, name: str, knowledge: Knowledge, checks: Iterable[str], policy: Policy | None = None, signer: str = ""
) -> list[Waiver]:
    """Check and compile. ``checks``: ids of all checks. Raises :class:`PolicyError` with everything that is wrong."""
    try:
        marked = load_yaml(text, name)
    except InvalidInput as e:
        raise PolicyError([Problem(p.what, p.where, p.why, p.fix, "W001") for p in e.problems]) from None
    if problems := check_schema(marked, "waivers", "docs/waivers.md"):
        raise PolicyError(problems)
    reader = _Reader(PolicyFile(name, marked, signer), knowledge, checks, policy)
    found = reader.read()
    if reader.problems:
        raise PolicyError(reader.problems)
    return found


def load(
    path: str, knowledge: Knowledge, checks: Iterable[str], policy: Policy | None = None, verify: Verify | None = None
) -> list[Waiver]:
    """Read a file of waivers. Raises :class:`PolicyError`."""
    data = read_bytes(Path(path), "waivers file")
    # An example that came with the tool is nobody's approval: here every file needs its signature.
    signer = verify(Path(path), data) if verify is not None else ""
    return parse(decode(data, path, "waivers file"), path, knowledge, checks, policy, signer)


def load_all(
    paths: Iterable[str], knowledge: Knowledge, checks: Iterable[str], policy: Policy, verify: Verify | None = None
) -> list[Waiver]:
    """The waivers of several files. Raises :class:`PolicyError`."""
    ids = tuple(checks)
    found: list[Waiver] = []
    for path in paths:
        for waiver in load(path, knowledge, ids, policy, verify):
            if clash := next((w for w in found if w.id == waiver.id), None):
                what, why = f"the waiver {waiver.id!r} stands twice", f"the other is at {clash.where}"
                raise PolicyError(what, where=waiver.where, why=why, fix="rename one", id="W002")
            found.append(waiver)
    return found


def doubts(waivers: Sequence[Waiver], today: date) -> Iterator[Problem]:
    """Warnings: waivers that last very long, and pairs of which one is idle."""
    for n, w in enumerate(waivers):
        if w.expires > today + timedelta(days=_LONG):
            what = f"the waiver {w.id!r} lasts until {w.expires}"
            why = "an exception of more than a year is seldom looked at again"
            yield Problem(what, w.where, why, "choose an earlier day", "W006", "warning")
        for other in waivers[:n]:
            if (w.about, w.source) == (other.about, other.source):
                what = f"the waivers {other.id!r} and {w.id!r} are about the same on the same hosts"
                why = f"{max(other, w, key=lambda x: x.expires).id!r} lasts longer and counts; the other is at {other.where}"
                yield Problem(what, w.where, why, "keep one", "W011", "warning")
