# SPDX-License-Identifier: Apache-2.0
"""``kdo validate``."""

from __future__ import annotations

import click

from orchestrator.cli.common import (
    Hosts,
    PolicyChoice,
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
@host_options()
@policy_options(waivers=True)
@format_option("table", "json", "jsonl")
def command(hosts: Hosts, chosen: PolicyChoice, output: str) -> int:
    """Check, with evidence, that kdump is armed as decided. Read-only."""
    from orchestrator.checks.waive import judge_host
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.reports.plans import counts, tally, verdicts

    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    found = gather(hosts, pipeline.targets())
    results = [judge_host(pipeline, facts, waivers) for facts in found.facts]
    if output == "json":
        write_json(
            {
                "format_version": FORMAT_VERSION,
                "hosts": results,
                "summary": counts(results),
                "problems": problem_data(found.problems),
            }
        )
    elif output == "jsonl":
        for result in results:
            write_line(result)
    else:
        verdicts(results)
        tally(results)
    report_waivers(waivers, checks=True)
    report_problems(found.problems)
    return exit_code(found.problems, pending=any(v.status != "pass" for v in results))
