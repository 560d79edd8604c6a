# SPDX-License-Identifier: Apache-2.0
"""``kdo policy lint``."""

from __future__ import annotations

import click

from orchestrator.cli.common import format_option, write_json
from orchestrator.errors import Exit, PolicyError, Problem


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@format_option("table", "json")
def command(files: tuple[str, ...], output: str) -> int:
    """Check policies: shape, meaning, rules that never apply, strategies that no platform in reach can do.

    Without FILE the shipped policy is checked. Exit code 5 if there is an error, 0 if there are only warnings.
    """
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.knowledge.load import knowledge
    from orchestrator.policy.lint import lint as lint_policy
    from orchestrator.policy.load import default_path, load
    from orchestrator.reports.text import line

    known = knowledge()
    results: list[tuple[str, list[Problem]]] = []
    for file in files or (str(default_path()),):
        try:
            results.append((file, lint_policy(load(file, known), known)))
        except PolicyError as e:
            results.append((file, e.problems))
    bad = any(p.severity == "error" for _, problems in results for p in problems)
    if output == "json":
        write_json(
            {
                "format_version": FORMAT_VERSION,
                "files": [
                    {
                        "file": file,
                        "problems": [
                            {
                                "id": p.id,
                                "severity": p.severity,
                                "where": p.where,
                                "what": p.what,
                                "why": p.why,
                                "fix": p.fix,
                            }
                            for p in problems
                        ],
                    }
                    for file, problems in results
                ],
            }
        )
    else:
        for file, problems in results:
            for problem in problems:
                for text in problem.lines():
                    line(text, "red" if problem.severity == "error" else "yellow")
            if not problems:
                line(f"{file}: fine", "green")
    return Exit.INVALID if bad else Exit.OK
