# SPDX-License-Identifier: Apache-2.0
"""``kdo enforce``."""

from __future__ import annotations

import re
import time

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import Hosts, format_option, host_options, policy_options, write_json, write_line
from orchestrator.cli.fleet import Engine, carry_on, engine_options, exit_of, settings_for
from orchestrator.errors import Exit, InvalidInput

_EVERY = re.compile(r"([1-9][0-9]{0,5})([smhd]?)\Z")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(text: str) -> int:
    found = _EVERY.match(text)
    if not found:
        raise InvalidInput(f"{text!r} is no time", where="--every", fix="give 30m, 6h or 1d")
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@host_options(facts=False)
@policy_options(waivers=True)
@engine_options
@click.option(
    "--reboot", is_flag=True, help="Also reboot the hosts whose plan needs it, where the policy lets them now."
)
@click.option("--check", is_flag=True, help="Look at every host and say what would be changed; change none.")
@click.option(
    "--every", default="", metavar="TIME", help="Again and again, e.g. 6h, until a signal comes. Default: once."
)
@format_option("table", "json")
def command(
    hosts: Hosts, chosen: PolicyChoice, store_url: str | None, engine: Engine, reboot: bool, check: bool, every: str, output: str
) -> int:  # fmt: skip
    """Look at every host, and bring back those that have drifted: within the policy's level, budget and windows.

    Only one enforcement of a fleet runs at a time. A rule with level audit is reported, never enforced. When more hosts drift
    than rollout.max_hosts, none is changed; a host that does not stay as it was set is left to a person after three times.
    """
    pause = _seconds(every) if every else 0
    while True:
        code = _round(hosts, chosen, store_url, engine, reboot, check, output, many=bool(every))
        if not pause or code == Exit.INTERRUPTED:
            return code
        try:
            time.sleep(pause)
        except KeyboardInterrupt:
            return Exit.OK


def _round(
    hosts: Hosts, chosen: PolicyChoice, store_url: str | None, engine: Engine, reboot: bool, check: bool, output: str, *,
    many: bool,
) -> int:  # fmt: skip
    from datetime import UTC, datetime

    from orchestrator.documents.base import digest
    from orchestrator.engine.begin import begin_apply, begin_sweep
    from orchestrator.engine.enforce import choose, drifting_of, spent_lately
    from orchestrator.engine.job import worker_name
    from orchestrator.fleet.inventory import resolve
    from orchestrator.planning.plan import rollout_of
    from orchestrator.reports.fleet import enforced
    from orchestrator.store import leases, runs
    from orchestrator.store.store import Store

    pipeline = chosen.pipeline()
    chosen.waiver_set(pipeline)
    rollout = rollout_of(pipeline.policy)
    inventory = resolve(hosts.whom())
    with (
        Store(store_url) as store,
        leases.holding(store, "enforce", worker_name("enforce"), "another enforcement of this fleet is under way"),
    ):
        engine.check(store)
        settings = settings_for(hosts, chosen, engine, rollout, lane="auto", reboot=reboot)
        sweep = begin_sweep(store, pipeline.policy, inventory, settings)
        state = carry_on(store, sweep, inventory)
        tally = runs.tally(store.database, sweep.id)
        if state != "done":
            return exit_of(state, tally)
        moment = datetime.now(UTC)
        drifting = list(drifting_of(store, sweep, moment, reboot=reboot))
        choice = choose(drifting, rollout, sweep.hosts, spent_lately(store.database, moment))
        run, came = None, {}
        if choice.chosen and not check:
            plans = [(d.host, d.plan) for d in choice.chosen]
            run = begin_apply(store, pipeline.policy, inventory, settings, plans, digest([sweep.id, plans]), "enforce")
            state = carry_on(store, run, inventory)
            came = runs.tally(store.database, run.id)
        data = {
            "format_version": "1.0", "sweep": sweep.id, "looked": tally, "run": run.id if run else "", "state": state,
            "came_to": came, "chosen": [d.host for d in choice.chosen], "left": choice.left,
            "stopped": choice.stopped,
        }  # fmt: skip
        if output == "json":
            write_line(data) if many else write_json(data)
        else:
            enforced(
                sweep,
                tally,
                choice.stopped,
                choice.left,
                [d.host for d in choice.chosen],
                run,
                came,
                state,
            )
    # What is left as it was, on purpose or not, is a violation that somebody should know of.
    left = {"drift": 1} if choice.stopped or choice.left or (check and choice.chosen) else {}
    undone = {s: n for s, n in tally.items() if s not in ("drift", "pending reboot")} if run else tally
    return exit_of(state, {**undone, **came, **left})
