# SPDX-License-Identifier: Apache-2.0
"""``kdo policy test``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.common import format_option, write_json
from orchestrator.errors import Exit, InvalidInput, Problem


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--require-coverage", is_flag=True, help="A rule or an override that no case reaches is a failure.")
@click.option("--junit", "save", type=click.Path(dir_okay=False), metavar="FILE", help="Write JUnit XML, for CI systems.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Show also the cases that pass.")
@format_option("table", "json")
def command(files: tuple[str, ...], require_coverage: bool, save: str | None, verbose: bool, output: str) -> int:
    """Run the cases of FILEs: hosts, described or recorded, and what a policy must decide for them.

    Without FILE the tests of the shipped policies are run. Exit code 2 if a case fails, 5 if a file is not valid.
    See docs/testing-policies.md.
    """
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.collect import stream
    from orchestrator.knowledge.load import knowledge
    from orchestrator.planning.cases import FileResult, Runner
    from orchestrator.policy.cases import load_cases, shipped_tests
    from orchestrator.reports.cases import coverage, tested
    from orchestrator.reports.text import clean

    known = knowledge()
    runner = Runner(known, stream)
    results: list[FileResult] = []
    broken: dict[str, list[Problem]] = {}
    for path in [Path(f) for f in files] or shipped_tests():
        try:
            results.append(runner.run(load_cases(path, known)))
        except InvalidInput as e:
            broken[str(path)] = e.problems
    uncovered = runner.uncovered()
    hit, of = runner.counted()
    if save is not None:
        said = [(name, "\n".join(text for p in found for text in p.lines())) for name, found in broken.items()]
        _write(save, results, uncovered if require_coverage else [], said)
    counts = {word: sum(r.count(word) for r in results) for word in ("pass", "fail", "skip")}
    problems = [p for found in broken.values() for p in found]
    if output == "json":
        write_json(
            {
                "format_version": FORMAT_VERSION,
                "kind": "PolicyTestResult",
                "counts": counts,
                "files": results,
                "coverage": {"reached": hit, "of": of, "missing": uncovered},
                "problems": [
                    {"id": p.id, "where": p.where, "what": p.what, "why": p.why, "fix": p.fix} for p in problems
                ],
            }
        )
    else:
        tested(results, verbose)
        if of:
            coverage(uncovered, hit, of, require_coverage)
    for problem in problems:
        for text in problem.lines():
            print(clean(text), file=sys.stderr)
    if broken:
        return Exit.INVALID
    return Exit.PENDING if counts["fail"] or (require_coverage and uncovered) else Exit.OK


def _write(path: str, results: list, uncovered: list, broken: list[tuple[str, str]]) -> None:  # type: ignore[type-arg]
    from orchestrator.reports.junit import junit

    try:
        Path(path).write_bytes(junit(results, uncovered, broken))
    except OSError as e:
        raise InvalidInput(
            "cannot write the results", where=path, why=e.strerror or str(e), fix="mend the path"
        ) from None
