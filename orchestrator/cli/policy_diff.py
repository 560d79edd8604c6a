# SPDX-License-Identifier: Apache-2.0
"""``kdo policy diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import exit_code, format_option, problem_data, report_problems, write_json
from orchestrator.errors import InvalidInput, KnowledgeError

if TYPE_CHECKING:
    from orchestrator.documents.facts import Facts
    from orchestrator.fleet.collect import HostProblem
    from orchestrator.planning.whatif import Comparison, World

_MAX_TOLD = 1000  # hosts whose facts cannot be used: a stream of nothing else must not fill the memory


@click.command()
@click.argument("old")
@click.argument("new", required=False)
@click.option("--facts", "paths", multiple=True, required=True, metavar="PATH", help="Recorded facts of the fleet (JSON, JSON lines, - for stdin); may be given several times.")  # fmt: skip
@click.option("--old-knowledge", type=click.Path(file_okay=False), metavar="DIR", help="Knowledge data that OLD is held against (a copy of policies/knowledge of another version). NEW may then be left out.")  # fmt: skip
@click.option("--all", "every_name", is_flag=True, help="Name all hosts, not only the first few of each group.")
@format_option("table", "json")
def command(
    old: str, new: str | None, paths: tuple[str, ...], old_knowledge: str | None, every_name: bool, output: str
) -> int:
    """Show what would change on recorded hosts if policy OLD became NEW (files, or names of shipped ones).

    Hosts are grouped by what changes for them. No host is asked. Exit code 0 if nothing changes, 2 if something does.
    """
    from orchestrator.documents.base import to_builtins
    from orchestrator.fleet.collect import HostProblem, stream
    from orchestrator.planning.pipeline import bulk
    from orchestrator.planning.whatif import Comparison
    from orchestrator.reports.whatif import compared

    if new is None and old_knowledge is None:
        why = "two policies are compared, or one policy with two versions of the knowledge"
        raise InvalidInput("there is nothing to compare with", why=why, fix="name NEW, or give --old-knowledge DIR")
    comparison = Comparison(_world(old, old_knowledge), _world(new or old, None), every_name)
    problems: list[HostProblem] = []
    with bulk():
        for path in paths:
            for item in stream(path):
                problem = item if isinstance(item, HostProblem) else _add(comparison, item)
                if problem is not None and len(problems) < _MAX_TOLD:
                    problems.append(problem)
    found = comparison.result()
    if output == "json":
        write_json({**to_builtins(found), "problems": problem_data(problems)})
    else:
        compared(found)
    report_problems(problems)
    return exit_code(problems, pending=bool(found.groups))


def _add(comparison: Comparison, facts: Facts) -> HostProblem | None:
    """Compare one host; what is odd about one must not keep the others from being compared."""
    from orchestrator.fleet.collect import HostProblem

    try:
        comparison.add(facts)
    except InvalidInput as e:
        p = e.problems[0]
        return HostProblem(facts.host, "failed", f"{p.where}: {p.what}" if p.where else p.what, p.why, p.fix)
    return None


def _world(policy: str, directory: str | None) -> World:
    """A policy with the shipped knowledge, or with that of a directory."""
    from orchestrator.knowledge.load import knowledge
    from orchestrator.planning.whatif import World
    from orchestrator.platforms.tables import load_from
    from orchestrator.policy.load import load

    known = knowledge() if directory is None else knowledge(Path(directory))
    try:
        tables = None if directory is None else load_from(Path(directory))
    except KnowledgeError as e:  # the user's directory, not our data
        raise InvalidInput(e.problems) from None
    return World(load(policy, known), known, tables)
