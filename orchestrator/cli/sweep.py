# SPDX-License-Identifier: Apache-2.0
"""``kdo sweep``."""

from __future__ import annotations

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import Hosts, format_option, host_options, policy_options, write_json
from orchestrator.cli.fleet import Engine, carry_on, engine_options, exit_of, settings_for


@click.command()
@host_options(facts=False)
@policy_options(waivers=True)
@engine_options
@click.option("--lane", "by", type=click.Choice(("auto", "fast", "ansible")), default="auto", show_default=True,
              help="How hosts are asked: many SSH connections of one process where that is possible, or Ansible.")  # fmt: skip
@format_option("table", "json")
def command(hosts: Hosts, chosen: PolicyChoice, store_url: str | None, engine: Engine, by: str, output: str) -> int:
    """Look at every host of a fleet, decide, plan and validate, and remember it all. Read-only on the hosts.

    `kdo status` then answers from what is on record. A host that cannot be reached stops nothing.
    """
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.engine.begin import begin_sweep
    from orchestrator.fleet.inventory import resolve
    from orchestrator.reports.fleet import run as show
    from orchestrator.store import runs
    from orchestrator.store.store import Store

    if by == "fast" and engine.name == "local":  # elsewhere it is for the workers to say
        from orchestrator.fleet.fast import require

        require()
    pipeline = chosen.pipeline()
    chosen.waiver_set(pipeline)
    inventory = resolve(hosts.whom())
    settings = settings_for(hosts, chosen, engine, lane=by)
    with Store(store_url) as store:
        engine.check(store)
        run = begin_sweep(store, pipeline.policy, inventory, settings)
        state = carry_on(store, run, inventory)
        tally = runs.tally(store.database, run.id)
        if output == "json":
            write_json({"format_version": FORMAT_VERSION, "run": run.id, "state": state, "hosts": tally})
        else:
            bad = runs.hosts_of(store.database, run.id, states=("failed", "unreachable"))
            row = runs.get(store.database, run.id)
            show(row, [], tally, [h for _, h in zip(range(20), bad, strict=False)])
    return exit_of(state, tally)
