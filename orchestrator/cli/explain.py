# SPDX-License-Identifier: Apache-2.0
"""``kdo explain``."""

from __future__ import annotations

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import (
    Hosts,
    exit_code,
    format_option,
    gather,
    host_options,
    policy_options,
    problem_data,
    report_problems,
    write_json,
)
from orchestrator.errors import InvalidInput


@click.command()
@click.argument("host", required=False)
@host_options(lanes=True)
@policy_options()
@click.option(
    "--against", "compare", is_flag=True, help="Show also why not the other strategies, and what would differ."
)
@format_option("table", "json")
def command(host: str | None, hosts: Hosts, chosen: PolicyChoice, compare: bool, output: str) -> int:
    """Show every rule and every clause behind the decision for HOST (default: this machine, or the only one there is)."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.planning.plan import summary
    from orchestrator.policy.against import against
    from orchestrator.reports.hosts import compared, explained

    pipeline = chosen.pipeline()
    hosts = hosts.narrowed(host)
    found = gather(hosts, pipeline.targets())
    asked = [f for f in found.facts if host in (None, f.host)]
    if not asked and not found.problems:
        known = ", ".join(f.host for f in found.facts[:10])
        raise InvalidInput(
            f"there is no host {host!r}", why="it is neither in the inventory nor in the facts", fix=f"known: {known}"
        )
    if len(asked) > 1:
        raise InvalidInput(
            "more than one host",
            why=f"{len(asked)} hosts were found, explain is about one",
            fix="name it: kdo explain HOST",
        )
    for facts in asked:
        judged = pipeline.explain(facts)
        others = against(pipeline.decider, facts, judged.platform) if compare else []
        if output == "json":
            write_json(
                {
                    "format_version": FORMAT_VERSION,
                    "host": facts.host,
                    "platform": judged.platform,
                    "decision": judged.decision,
                    "signers": pipeline.policy.signers,
                    **({"against": others} if compare else {}),
                    "problems": problem_data(found.problems),
                }
            )
        else:
            explained(facts, judged.platform, judged.decision, summary(judged.platform), pipeline.policy.signers)
            compared(others)
    report_problems(found.problems)
    return exit_code(found.problems)
