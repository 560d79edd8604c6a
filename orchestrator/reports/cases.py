# SPDX-License-Identifier: Apache-2.0
"""Results of policy tests for people: what failed, where it is written, and the clauses that decided."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.planning.cases import CaseResult, FileResult, Matched, Uncovered
from orchestrator.reports.hosts import clause_tree
from orchestrator.reports.text import diff, line

_ANSWER = {True: "matches", False: "does not match", None: "cannot be told"}
_STYLE = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def tested(files: Sequence[FileResult], verbose: bool) -> None:
    """Files with what failed and what was skipped; with ``verbose`` also what passed."""
    for file in files:
        for case in file.cases:
            if case.result != "pass" or verbose:
                _case(case)
        failed, skipped = file.count("fail"), file.count("skip")
        counts = [f"{file.count('pass')} passed", *([f"{failed} failed"] if failed else [])]
        counts += [f"{skipped} skipped"] if skipped else []
        text = f"{file.file}: policy {file.policy}: {len(file.cases)} cases, {', '.join(counts)}"
        line(text, "red" if failed else "green")


def _case(case: CaseResult) -> None:
    reason = f": {case.reason}" if case.reason else ""
    line(f"{case.result.upper()}  {case.name}{reason}  [{case.where}]", _STYLE[case.result])
    for d in case.differences:
        line(f"  {d.where}: {d.what}")
        line(f"    expected: {d.expected}")
        line(f"    came:     {d.came}", "red")
        if d.note:
            line(f"    why:      {d.note}")
        diff("\n".join(d.diff), 6)
    for rule in case.rules:
        _rule(rule)


def _rule(rule: Matched) -> None:
    word = _ANSWER[rule.matched]
    if rule.what == "expected" and rule.matched:
        word = "matches too, but an earlier rule takes the host"
    line(f"  {rule.what}: {rule.id} {word}  [{rule.where}]", "dim")
    if not rule.clauses:
        line("      it has no clauses: it takes every host that is left")
    clause_tree(rule.clauses, 6)


def coverage(uncovered: Sequence[Uncovered], hit: int, of: int, required: bool) -> None:
    """What no case has reached, and the share that was reached."""
    for entry in uncovered:
        severity = "error" if required else "warning"
        text = f"{entry.where}: {severity}: no case of policy {entry.policy} reaches {entry.kind} {entry.id!r}"
        line(text, "red" if required else "yellow")
    line(f"coverage: {hit} of {of} rules and overrides", "yellow" if uncovered else "green")
