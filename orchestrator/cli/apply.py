# SPDX-License-Identifier: Apache-2.0
"""``kdo apply``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.apply_said import nothing_to_do, say_stale, within_cap
from orchestrator.cli.common import (
    Hosts,
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
from orchestrator.cli.fleet import Engine, engine_options
from orchestrator.errors import InvalidInput

if TYPE_CHECKING:
    from orchestrator.documents.plan import HostPlan, Plan, Rollout


@click.command()
@click.argument("plan_file", required=False, metavar="[PLAN]", type=click.Path(dir_okay=False))
@host_options(facts=False, lanes=True)
@policy_options(waivers=True)
@engine_options
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
@click.option(
    "--waves", metavar="SIZES", default="", help="Instead of the policy's: sizes of the waves, e.g. 1,10%,100%."
)
@click.option(
    "--max-fail", metavar="SHARE", default="", help="Instead of the policy's: how many hosts may fail, e.g. 2%."
)
@click.option("--prove-canary", is_flag=True,
              help="After the first wave, crash one of its hosts on purpose; no further wave without a vmcore.")  # fmt: skip
@click.option(
    "--consent", metavar="HOST", default="", help="With --prove-canary: the host to crash, without a question."
)
@format_option("table", "json")
def command(
    plan_file: str | None,
    hosts: Hosts,
    chosen: PolicyChoice,
    store_url: str | None,
    engine: Engine,
    yes: bool,
    check: bool,
    reboot: bool,
    no_trial: bool,
    max_hosts: int | None,
    waves: str,
    max_fail: str,
    prove_canary: bool,
    consent: str,
    output: str,
) -> int:
    """Do exactly what PLAN says, as one transaction per host, in the waves of the policy's rollout.

    Without PLAN: look at the hosts, show what would be done, and ask. With --reboot, new boot arguments are tried for one
    boot, and become the default only when that boot validates. A host that has moved on since the plan was made is refused
    (exit code 6); the others go on. The run is on record: kdo runs show, pause, resume, cancel.
    """
    from orchestrator.planning.files import read_plan
    from orchestrator.planning.plan import rollout_of

    if consent and not prove_canary:
        raise InvalidInput(
            "there is nothing to consent to", where="--consent", fix="add --prove-canary, or leave it out"
        )
    saved = read_plan(Path(plan_file)) if plan_file else None
    pipeline = chosen.pipeline()
    if saved is not None:
        _same_policy(saved, pipeline.policy.hash, chosen.name)
    rollout = _rollout(saved.rollout if saved is not None else rollout_of(pipeline.policy), waves, max_fail)
    if saved is not None and reboot and not no_trial:
        _warn_of_no_trial([h for h in saved.hosts if h.status == "changes" and h.changes])
    if check:
        return _check(saved, hosts, chosen, rollout, reboot, not no_trial, max_hosts, output)
    from orchestrator.cli.applying import Applying

    how = Applying(
        hosts, chosen, engine, rollout, pipeline, reboot, not no_trial, max_hosts, yes, prove_canary, consent
    )
    return how.go(store_url, saved, output)


def _rollout(rollout: Rollout, waves: str, max_fail: str) -> Rollout:
    import re

    import msgspec

    sizes = [w.strip() for w in waves.split(",") if w.strip()]
    for name, text in [*(("--waves", s) for s in sizes), *([("--max-fail", max_fail)] if max_fail else [])]:
        if not re.fullmatch(r"[0-9]{1,9}|(100|[0-9]{1,2})%", text):
            raise InvalidInput(
                f"{text!r} is no number of hosts", where=name, fix="give numbers or percentages: 1,10%,100%"
            )
    if sizes:
        rollout = msgspec.structs.replace(rollout, waves=sizes, canary=[])
    return msgspec.structs.replace(rollout, max_fail=max_fail) if max_fail else rollout


def _check(
    saved: Plan | None, hosts: Hosts, chosen: PolicyChoice, rollout: Rollout, reboot: bool, trial: bool,
    max_hosts: int | None, output: str,
) -> int:  # fmt: skip
    """Everything up to the first change, in this process: a dry run leaves nothing anywhere, not even a record of itself."""
    from orchestrator.checks.waive import plan_host
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.session import Run
    from orchestrator.planning.plan import seal
    from orchestrator.reports.plans import outcomes, planned
    from orchestrator.reports.text import line

    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    whom = hosts.whom()
    found = gather(hosts, pipeline.targets())
    plan = saved or seal(waivers.signed(pipeline.policy), [plan_host(pipeline, f, waivers) for f in found.facts])
    if saved is None and output == "table":
        planned(plan)
    if saved is None:
        report_waivers(waivers, checks=False)
    work = [h for h in plan.hosts if h.status == "changes" and h.changes]
    within_cap(len(work), rollout.max_hosts, max_hosts, chosen.name)
    ticker = Ticker("checking")
    result = Run(pipeline, whom, plan, check=True, reboot=reboot, trial=trial, progress=ticker, waivers=waivers).apply(
        found
    )
    ticker.close()
    if output == "json":
        write_json(
            {
                "format_version": FORMAT_VERSION,
                "plan": plan.hash,
                "hosts": result.outcomes,
                "problems": problem_data(found.problems),
            }
        )
    else:
        outcomes(result.outcomes)
        if not work:
            nothing_to_do(plan.hosts)
        else:
            line("checked only: nothing was changed")
    report_problems(found.problems)
    stale = [o.host for o in result.outcomes if o.state == "stale"]
    say_stale(stale)
    failed = any(o.state in ("failed", "undone", "undo-incomplete", "refused") for o in result.outcomes)
    unreachable = any(o.state == "unreachable" for o in result.outcomes)
    bad = any(h.status in ("refused", "audit") for h in plan.hosts)
    code = exit_code(found.problems, pending=bad or bool(work), failed=failed, stale=bool(stale))
    return 4 if unreachable and code in (0, 2) else code


def _warn_of_no_trial(work: list[HostPlan]) -> None:
    """What a plan that was made earlier says of hosts that cannot try their arguments; a new one has just been shown."""
    from orchestrator.planning.steps import NO_TRIAL

    for host in work:
        for note in host.notes:
            if note.startswith(NO_TRIAL):
                click.echo(f"{host.host}: {note}", err=True)


def _same_policy(plan: Plan, current: str, where: str) -> None:
    """A plan belongs to the policy and knowledge that it was made with."""
    if plan.policy_hash != current:
        raise InvalidInput(
            "the plan was made with another policy or another version of the knowledge",
            where=where,
            why=f"plan: {plan.policy} {plan.policy_hash[:12]}, now: {current[:12]}",
            fix="give the same policy with -p, or plan again",
        )
