# SPDX-License-Identifier: Apache-2.0
"""``kdo policy lint``."""

from __future__ import annotations

import click

from orchestrator.cli.common import finding_data, format_option, write_json
from orchestrator.errors import Exit, PolicyError, Problem


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@format_option("table", "json")
def command(files: tuple[str, ...], strict: bool, output: str) -> int:
    """Check policies: shape, meaning, rules that never apply, gaps, overlaps, what no platform in reach can honour.

    Nothing is sampled: every finding holds for all hosts that there can be, and shows an example. FILE is a policy or
    the name of a shipped one; without FILE all shipped policies are checked. Exit code 5 if there is an error, 0 if
    there are only warnings and notes.
    """
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.knowledge.load import knowledge
    from orchestrator.policy.compose import shipped
    from orchestrator.policy.lint import lint as lint_policy
    from orchestrator.policy.load import load
    from orchestrator.reports.text import line

    known = knowledge()
    results: list[tuple[str, list[Problem]]] = []
    for file in files or tuple(shipped()):
        try:
            results.append((file, lint_policy(load(file, known), known)))
        except PolicyError as e:
            results.append((file, e.problems))
    counts = ("error", "warning") if strict else ("error",)
    bad = any(p.severity in counts for _, problems in results for p in problems)
    styles = {"error": "red", "warning": "yellow", "note": "dim"}
    if output == "json":
        found = [{"file": file, "problems": finding_data(problems)} for file, problems in results]
        write_json({"format_version": FORMAT_VERSION, "files": found})
    else:
        for file, problems in results:
            for problem in problems:
                for text in problem.lines():
                    line(text, styles[problem.severity])
            counted = [f"{n} {s}s" for s in styles if (n := sum(p.severity == s for p in problems))]
            line(f"{file}: {', '.join(counted) or 'fine'}", "green" if not counted else "")
    return Exit.INVALID if bad else Exit.OK
