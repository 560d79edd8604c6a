# SPDX-License-Identifier: Apache-2.0
"""``kdo apply``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import (
    Hosts,
    PolicyChoice,
    Ticker,
    exit_code,
    format_option,
    gather,
    host_options,
    policy_options,
    problem_data,
    report_problems,
    report_waivers,
    write_json,
)
from orchestrator.errors import InvalidInput, StalePlan

if TYPE_CHECKING:
    from orchestrator.documents.plan import HostPlan, Plan


@click.command()
@click.argument("plan_file", required=False, metavar="[PLAN]", type=click.Path(dir_okay=False))
@host_options(facts=False)
@policy_options(waivers=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--check", is_flag=True, help="Go through all preconditions on the hosts, but change nothing.")
@click.option("--reboot", is_flag=True, help="Reboot the hosts whose plan needs it, wait for them, and validate.")
@click.option(
    "--no-trial",
    is_flag=True,
    help="With --reboot: make new boot arguments the default at once, without trying them for one boot first.",
)
@click.option(
    "--max-hosts",
    type=click.IntRange(1),
    metavar="N",
    help="Allow a run that changes up to N hosts, where the policy's rollout allows fewer.",
)
@format_option("table", "json")
def command(
    plan_file: str | None,
    hosts: Hosts,
    chosen: PolicyChoice,
    yes: bool,
    check: bool,
    reboot: bool,
    no_trial: bool,
    max_hosts: int | None,
    output: str,
) -> int:
    """Do exactly what PLAN says, as one transaction per host. Without PLAN: plan first, show it, and ask.

    With --reboot, new boot arguments are tried for one boot, and become the default only when that boot validates.

    A host that has moved on since the plan was made is refused (exit code 6); the others go on.
    """
    from orchestrator.checks.waive import plan_host
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.session import Run
    from orchestrator.planning.files import read_plan
    from orchestrator.planning.plan import seal
    from orchestrator.reports.plans import outcomes, planned, total, verdicts
    from orchestrator.reports.text import line

    saved = read_plan(Path(plan_file)) if plan_file else None
    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    whom = hosts.whom()
    if saved is not None:
        _same_policy(saved, pipeline.policy.hash, chosen.name)
    found = gather(hosts, pipeline.targets())
    plan = saved or seal(waivers.signed(pipeline.policy), [plan_host(pipeline, f, waivers) for f in found.facts])
    if saved is None and output == "table":
        planned(plan)
    if saved is None:
        report_waivers(waivers, checks=False)
    work = [h for h in plan.hosts if h.status == "changes" and h.changes]
    _within_cap(plan, len(work), max_hosts, chosen.name)
    if work and reboot and not no_trial and saved is not None:
        _warn_of_no_trial(work)
    if work and not yes and not check:
        click.echo(total(plan), err=True)
        click.confirm(f"Apply {plan.changes} changes to {len(work)} hosts?", abort=True, err=True)
    ticker = Ticker("applying")
    result = Run(
        pipeline, whom, plan, check=check, reboot=reboot, trial=not no_trial, progress=ticker, waivers=waivers
    ).apply(found)
    ticker.close()
    if output == "json":
        write_json(
            {
                "format_version": FORMAT_VERSION,
                "plan": plan.hash,
                "hosts": result.outcomes,
                "validation": result.verdicts,
                "pending_reboot": result.pending_reboot,
                "reboot_held": result.reboot_held,
                "held": result.held,
                "waves": result.waves,
                "problems": problem_data(found.problems),
            }
        )
    else:
        outcomes(result.outcomes)
        verdicts(result.verdicts)
        for host in result.pending_reboot:
            how = result.reboot_held.get(host, "--reboot does it")
            line(f"{host}: a reboot is needed before this is in force ({how})", "yellow")
        if result.held:
            line(f"held back: {len(result.held)} hosts, because too many of the waves before have failed", "red")
        if not work:
            settled = all(h.status == "none" for h in plan.hosts)
            line("nothing to change" if settled else "nothing was changed", "green" if settled else "yellow")
    report_problems(found.problems)
    stale = [o.host for o in result.outcomes if o.state == "stale"]
    if stale:
        for host in stale:
            problem = StalePlan(
                "the plan is stale",
                where=host,
                why="the host has changed since the plan was made",
                fix="kdo plan again",
            ).problems[0]
            for text in problem.lines():
                click.echo(text, err=True)
    failed = bool(result.held) or any(
        o.state in ("failed", "undone", "undo-incomplete", "refused") for o in result.outcomes
    )
    unreachable = any(o.state == "unreachable" for o in result.outcomes)
    bad = any(v.status == "fail" for v in result.verdicts) or any(h.status in ("refused", "audit") for h in plan.hosts)
    pending = bool(result.pending_reboot) or bad or (check and bool(work))
    code = exit_code(found.problems, pending=pending, failed=failed, stale=bool(stale))
    return 4 if unreachable and code in (0, 2) else code


def _warn_of_no_trial(work: list[HostPlan]) -> None:
    """What a plan that was made earlier says of hosts that cannot try their arguments; a new one has just been shown."""
    from orchestrator.planning.steps import NO_TRIAL

    for host in work:
        for note in host.notes:
            if note.startswith(NO_TRIAL):
                click.echo(f"{host.host}: {note}", err=True)


def _within_cap(plan: Plan, hosts: int, max_hosts: int | None, where: str) -> None:
    cap = plan.rollout.max_hosts
    allowed = max_hosts or cap
    if allowed is not None and hosts > allowed:
        raise InvalidInput(
            f"the plan changes {hosts} hosts, allowed are {allowed}",
            where=where,
            why=f"rollout.max_hosts of the policy is {cap}" if max_hosts is None else f"--max-hosts is {max_hosts}",
            fix=f"narrow it with --limit, or confirm with --max-hosts {hosts}",
        )


def _same_policy(plan: Plan, current: str, where: str) -> None:
    """A plan belongs to the policy and knowledge that it was made with."""
    if plan.policy_hash != current:
        raise InvalidInput(
            "the plan was made with another policy or another version of the knowledge",
            where=where,
            why=f"plan: {plan.policy} {plan.policy_hash[:12]}, now: {current[:12]}",
            fix="give the same policy with -p, or plan again",
        )
