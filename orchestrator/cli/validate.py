# SPDX-License-Identifier: Apache-2.0
"""``kdo validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from orchestrator.cli.fleet import store_option
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.documents.facts import Facts
    from orchestrator.documents.proof import Proof
    from orchestrator.planning.pipeline import Pipeline


def _probed(hosts: Hosts, pipeline: Pipeline, found: Sequence[Facts]) -> list[Facts]:
    """The facts with what came of a login at each host's dump server."""
    from orchestrator.fleet.login import try_logins, with_login

    if hosts.facts:
        raise InvalidInput("--probe-target asks hosts", why="recorded facts name none", fix="give an inventory with -i")
    targets = {facts.host: pipeline.judge(facts).decision.settings.target for facts in found}
    wanted = [(facts, targets[facts.host]) for facts in found if targets[facts.host].kind == "ssh"]
    answers = try_logins(hosts.whom(), wanted)
    return [with_login(f, answers[f.host]) if f.host in answers else f for f in found]


def _on_record(store_url: str | None, hosts: Sequence[str]) -> list[Proof]:
    """The crash tests that a store knows of. One that cannot be read is said, and keeps nobody from validating."""
    from orchestrator.errors import KdoError
    from orchestrator.reports.text import clean
    from orchestrator.store.hosts import proofs_about
    from orchestrator.store.store import Store, default_url

    if store_url is None and not Path(default_url()).exists():
        return []  # nothing was ever remembered here
    try:
        with Store(store_url, create=False, readonly=True) as store:
            return proofs_about(store, hosts)
    except KdoError as error:
        click.echo(clean(f"note: crash tests on record are not considered: {error}"), err=True)
        return []


@click.command()
@host_options(lanes=True)
@policy_options(waivers=True)
@click.option(
    "--probe-target", is_flag=True, help="Also let each host log in at its SSH dump server, which nothing else does."
)
@store_option
@format_option("table", "json", "jsonl")
def command(hosts: Hosts, chosen: PolicyChoice, probe_target: bool, store_url: str | None, output: str) -> int:
    """Check, with evidence, that kdump is armed as decided. Read-only.

    What crash tests have proven is read from this account's own proofs, and from the store where there is one.
    """
    from orchestrator.checks.waive import judge_host
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.proof.standing import with_standing
    from orchestrator.proof.store import by_host, stored
    from orchestrator.reports.plans import counts, tally, verdicts

    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    found = gather(hosts, pipeline.targets())
    seen = _probed(hosts, pipeline, found.facts) if probe_target else found.facts
    proofs = by_host([*stored(), *_on_record(store_url, [f.host for f in seen])])
    results = [with_standing(judge_host(pipeline, facts, waivers), proofs) for facts in seen]
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
