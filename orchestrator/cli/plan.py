# SPDX-License-Identifier: Apache-2.0
"""``kdo plan``."""

from __future__ import annotations

from pathlib import Path

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
    report_waivers,
    write_json,
    write_line,
)


@click.command()
@host_options(lanes=True)
@policy_options(waivers=True)
@click.option(
    "-o",
    "--output",
    "save",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Save the plan: it can be reviewed, and applied later.",
)
@format_option("table", "json", "jsonl")
def command(hosts: Hosts, chosen: PolicyChoice, save: str | None, output: str) -> int:
    """Dry run: what would change on each host, and why. Writes nothing on any host."""
    from orchestrator.checks.waive import plan_host
    from orchestrator.documents.base import FORMAT_VERSION, to_builtins
    from orchestrator.planning.files import write_plan
    from orchestrator.planning.pipeline import bulk
    from orchestrator.planning.plan import seal
    from orchestrator.reports.plans import planned

    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    with bulk():
        found = gather(hosts, pipeline.targets())
        plan = seal(waivers.signed(pipeline.policy), [plan_host(pipeline, f, waivers) for f in found.facts])
    if save is not None:
        write_plan(Path(save), plan)
    if output == "json":
        write_json({**to_builtins(plan), "problems": problem_data(found.problems)})
    elif output == "jsonl":
        for host in plan.hosts:
            write_line({"format_version": FORMAT_VERSION, **to_builtins(host)})
    else:
        planned(plan)
    report_waivers(waivers, checks=False)
    report_problems(found.problems)
    pending = any(h.status in ("changes", "refused", "audit") for h in plan.hosts)
    return exit_code(found.problems, pending=pending)
