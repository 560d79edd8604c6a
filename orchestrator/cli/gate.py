# SPDX-License-Identifier: Apache-2.0
"""The crash proof between the canary and the rest of a fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import Hosts
from orchestrator.errors import InvalidInput, KdoError

if TYPE_CHECKING:
    from orchestrator.engine.campaign import Gate
    from orchestrator.fleet.inventory import Inventory
    from orchestrator.store.runs import RunRow, WaveRow
    from orchestrator.store.store import Store

_TIMEOUT = 1800  # seconds that the host may take to dump and to come back


def canary_gate(store: Store, hosts: Hosts, chosen: PolicyChoice, inventory: Inventory, consent: str) -> Gate:
    """A gate that crashes one host of the first wave, once somebody has named it."""
    if consent and consent not in inventory.hosts:
        raise InvalidInput("the consent is for no host of this inventory", where="--consent", why=repr(consent))

    def gate(run: RunRow, wave: WaveRow) -> str:
        from orchestrator.store import runs

        if wave.number != 0:
            return ""
        names = [
            h.host
            for h in runs.hosts_of(store.database, run.id, wave=0)
            if h.state in ("changed", "compliant", "nothing")
        ]
        host = consent or (names[0] if names else "")
        if host not in names:
            return f"no host of the canary can be crashed to prove it ({consent or 'none is as it should be'})"
        if not consent:
            click.echo(f"{host} of the canary will be CRASHED to prove that it dumps.", err=True)
            if click.prompt("Type the host's name to go on", err=True, default="", show_default=False) != host:
                return "nobody consented to the crash that was to prove the canary"
        return _crash(store, hosts, chosen, host)

    return gate


def _crash(store: Store, hosts: Hosts, chosen: PolicyChoice, host: str) -> str:
    from orchestrator.cli.common import gather
    from orchestrator.proof.crash_test import CrashTest, only_one
    from orchestrator.store.hosts import keep_proof

    pipeline = chosen.pipeline()
    narrow = hosts.narrowed(host)
    facts = [f for f in gather(narrow, pipeline.targets()).facts if f.host == host]
    if not facts:
        return f"the canary {host} does not answer"
    test = CrashTest(pipeline, narrow.whom(), facts[0], chosen.waiver_set(pipeline), None)
    try:
        with only_one():
            expected = test.expected()
            proof, _ = test.crash(test.check(), expected, _TIMEOUT)
    except KdoError as error:
        return f"the canary {host} could not be proven: {error}"
    keep_proof(store.database, proof)
    return "" if proof.proven else f"the canary {host} left no vmcore: {proof.what or proof.outcome}"
