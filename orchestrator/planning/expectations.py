# SPDX-License-Identifier: Apache-2.0
"""What a case expects held against what was decided and planned: every difference, with its place in the file."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from msgspec import field

from orchestrator import bootloaders, hostside
from orchestrator.cmdline import key_of
from orchestrator.crashkernel import format_size, parse_size
from orchestrator.documents.base import Document
from orchestrator.documents.decision import Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.platform import Platform
from orchestrator.edits import text_after
from orchestrator.errors import InvalidInput
from orchestrator.planning.plan import Planner
from orchestrator.policy.case_settings import flat, flatten
from orchestrator.policy.cases import Case, CaseFile

_SIZES = ("reserved", "retention.minimum_free")
_MAX_DIFF = 40


class Difference(Document, frozen=True, kw_only=True):
    """One expectation that does not hold."""

    what: str
    expected: str
    came: str
    where: str
    note: str = ""  # why it came so, where that is known
    diff: list[str] = field(default_factory=list)


def _show(value: Any) -> str:
    if value is None or value == "":
        return "left alone" if value is None else "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(v) for v in value) or "none"
    return str(value)


def _size(value: Any) -> str:
    return "cannot be told" if value is None else format_size(value)


class Compare:
    """One case."""

    def __init__(
        self, file: CaseFile, case: Case, facts: Facts, platform: Platform, decision: Decision, planner: Planner
    ) -> None:
        self.file = file
        self.case = case
        self.facts = facts
        self.platform = platform
        self.decision = decision
        self.planner = planner
        self.out: list[Difference] = []

    def all(self) -> list[Difference]:
        """Every expectation of the case, in the order in which they are written."""
        for name, wanted in self.case.expect.items():
            try:
                getattr(self, f"_{name}")(wanted)
            except InvalidInput as e:  # the host's own files hold what cannot be planned with
                p = e.problems[0]
                self._differs((name,), "a host that can be planned", p.what, f"{p.where}: {p.why}")
        return self.out

    def _differs(
        self, path: tuple[str, ...], expected: str, came: str, note: str = "", diff: Sequence[str] = ()
    ) -> None:
        self.out.append(
            Difference(
                what=".".join(path),
                expected=expected,
                came=came,
                where=self.file.where(self.case, "expect", *path),
                note=note,
                diff=list(diff),
            )
        )

    def _refused(self) -> str:
        return "; ".join(f"{r.what} [{r.id}]" for r in self.decision.refusals)

    def _same(self, path: tuple[str, ...], expected: Any, came: Any, note: str = "") -> None:
        if expected != came:
            self._differs(path, _show(expected), _show(came), note)

    def _same_set(self, path: tuple[str, ...], expected: list[str], came: list[str], note: str = "") -> None:
        if set(expected) != set(came):
            self._differs(path, _show(sorted(expected)), _show(sorted(set(came))), note)

    # ------------------------------------------------------------------ the decision

    def _rule(self, wanted: str) -> None:
        self._same(("rule",), wanted, self.decision.rule)

    def _overrides(self, wanted: list[str]) -> None:
        self._same(("overrides",), wanted, self.decision.overrides)

    def _outcome(self, wanted: str) -> None:
        self._same(("outcome",), wanted, self.decision.outcome, self._refused())

    def _strategy(self, wanted: str) -> None:
        self._same(("strategy",), wanted, self.decision.strategy or "none", self._refused())

    def _layers(self, wanted: dict[str, str]) -> None:
        for name, state in wanted.items():
            layer = self.decision.layer(name)
            self._same(("layers", name), state, layer.state, layer.why)

    def _refusals(self, wanted: list[str]) -> None:
        self._same_set(("refusals",), wanted, [r.id for r in self.decision.refusals], self._refused())

    def _knowledge(self, wanted: list[str]) -> None:
        self._same_set(("knowledge",), wanted, self.decision.knowledge)

    def _settings(self, wanted: dict[str, Any]) -> None:
        came = flat(self.decision.settings)
        refused = self._refused()
        for name, path, value in flatten(wanted):
            here = ("settings", *path)
            if name in ("capture.has", "capture.lacks"):
                self._capture(here, name == "capture.has", value)
            elif name in _SIZES:
                have = came[name]
                if (None if value is None else parse_size(value)) != have:
                    self._differs(here, value or _size(None), _size(have), refused)
            elif name == "crashkernel":
                self._same(here, [value] if isinstance(value, str) else value, came[name], refused)
            elif name.startswith("sysctls."):
                self._same(here, None if value is None else str(value), came.get(name), refused)
            else:
                self._same(here, value, came[name], refused)

    def _capture(self, path: tuple[str, ...], has: bool, wanted: list[str]) -> None:
        arguments = self.decision.settings.capture_ensure
        keys = {key_of(a) for a in arguments}
        for argument in wanted:
            found = argument in arguments if "=" in argument else key_of(argument) in keys
            if found != has:
                text = f"{'' if has else 'no '}{argument}"
                self._differs(path, text, " ".join(arguments) or "none", self._refused())

    def _boot(self, wanted: dict[str, list[str]]) -> None:
        s = self.decision.settings
        for name, have in (("ensure", s.boot_ensure), ("remove", s.boot_remove)):
            if name in wanted:
                self._same_set(("boot", name), wanted[name], have, self._refused())

    # ------------------------------------------------------------------ files and plan

    @cached_property
    def rendered(self) -> tuple[dict[str, str], str]:
        """Path → text of every file that is written, and why there is none."""
        boot = bootloaders.next_boot(self.platform.boot_stack, self.facts)
        decision, refusals = self.planner.keep_reservation(self.decision, self.facts, boot)
        if decision.refusals or refusals:
            return {}, "; ".join(f"{r.what} [{r.id}]" for r in (*decision.refusals, *refusals))
        family = self.planner.families.get(self.platform.family)
        if family is None:
            return {}, f"the distribution family {self.platform.family} is not supported yet"
        desired = self.planner.desired(decision, self.facts, self.platform, boot)
        if not desired.supported:
            return {}, desired.why_not
        out: dict[str, str] = {}
        data = family.boot(self.platform.boot_stack) or {}
        stack = bootloaders.writer(self.platform.boot_stack, data)
        for file in [*desired.files, *stack.files(self.facts, desired, data)]:
            try:
                text = text_after(file, self.facts.files.get(file.path))
            except hostside.edit_error() as e:
                return out, f"{file.path} cannot be edited safely: {e}"
            if text is not None:
                out[file.path] = text
        return out, ""

    def _files(self, wanted: dict[str, dict[str, Any]]) -> None:
        texts, why_not = self.rendered
        for name, expected in wanted.items():
            text = texts.get(name)
            for key, value in expected.items():
                path = ("files", name, key)
                if key == "text":
                    self._whole(path, value, text, why_not)
                elif text is None:
                    self._differs(path, _show(value), "the file is not touched", why_not)
                else:
                    wrong = [part for part in value if (part in text) != (key == "contains")]
                    for part in wrong:
                        came = "it is not in it" if key == "contains" else "it is in it"
                        self._differs(path, f"{'' if key == 'contains' else 'not '}{part}", came, diff=_numbered(text))

    def _whole(self, path: tuple[str, ...], wanted: str | None, text: str | None, why_not: str) -> None:
        if wanted == text:
            return
        if wanted is None or text is None:
            shown = {True: "the file is not touched", False: "a file"}
            self._differs(path, shown[wanted is None], shown[text is None], why_not)
            return
        lines = difflib.unified_diff(wanted.splitlines(), text.splitlines(), "expected", "came", lineterm="", n=1)
        self._differs(path, f"{len(wanted)} characters", f"{len(text)} characters", diff=_cut(list(lines)))

    @cached_property
    def plan(self) -> HostPlan:
        """The plan for the host of the case."""
        return self.planner.plan_host(self.facts, self.platform, self.decision)

    def _plan(self, wanted: dict[str, Any]) -> None:
        plan = self.plan
        why = "; ".join(f"{r.what} [{r.id}]" for r in plan.refusals)
        for key, value in wanted.items():
            path = ("plan", key)
            if key == "changes":
                self._same_set(path, value, [c.kind for c in plan.changes], why)
            elif key == "refusals":
                self._same_set(path, value, [r.id for r in plan.refusals], why)
            else:
                self._same(path, value, getattr(plan, key), why or plan.reboot_why)


def _cut(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MAX_DIFF else [*lines[:_MAX_DIFF], f"… {len(lines) - _MAX_DIFF} more lines"]


def _numbered(text: str) -> list[str]:
    return _cut([f"{number:4}  {line}" for number, line in enumerate(text.splitlines(), 1)])
