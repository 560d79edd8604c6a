# SPDX-License-Identifier: Apache-2.0
"""The crash proof between the first wave of a rollout and the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.errors import KdoError

if TYPE_CHECKING:
    from orchestrator.documents.proof import Proof
    from orchestrator.fleet.inventory import Inventory
    from orchestrator.store.runs import RunRow, WaveRow
    from orchestrator.store.store import Store

_TIMEOUT = 1800  # seconds that the host may take to dump and to come back
#: States of a host in a run after which a crash proves what the run has set.
_PROVABLE = ("changed", "compliant", "nothing", "proof expired")


def prove_canary(store: Store, inventory: Inventory, consent: str, run: RunRow, _wave: WaveRow) -> str:
    """Crash one host of the first wave, once somebody has named it; "" when a host of it is proven.

    A crash test of a host of that wave that was made since its change is such a proof, too: also one whose wait was cut short,
    and whose verdict was fetched with ``kdo crash-test HOST --verdict``.
    """
    from orchestrator.store import runs
    from orchestrator.store.hosts import proven_since

    if proven_since(store.database, run.id, 0):
        return ""
    names = [h.host for h in runs.hosts_of(store.database, run.id, wave=0, states=_PROVABLE)]
    host = consent or (names[0] if names else "")
    if host not in names:
        return f"no host of the canary can be crashed to prove it ({consent or 'none is as it should be'})"
    if not consent:
        click.echo(f"{host} of the canary will be CRASHED to prove that it dumps.", err=True)
        try:
            typed = click.prompt("Type the host's name to go on", err=True, default="", show_default=False)
        except click.Abort:
            typed = ""
        if typed != host:
            return "nobody consented to the crash that was to prove the canary"
    try:
        proof = _crash(store, inventory, run, host)
    except KdoError as error:
        return f"the canary {host} could not be proven: {error}"
    return "" if proof.proven else f"the canary {host} left no vmcore: {proof.what or proof.outcome}"


def _crash(store: Store, inventory: Inventory, run: RunRow, host: str) -> Proof:
    """One crash test, as ``kdo crash-test`` does it. Raises :class:`KdoError` where the host may not be crashed."""
    from orchestrator.cli.crash_test import crash_and_remember
    from orchestrator.engine.begin import site_of
    from orchestrator.engine.job import policy_of, settings_of
    from orchestrator.fleet.collect import from_hosts
    from orchestrator.proof.crash_test import CrashTest, only_one

    settings = settings_of(run.settings)
    chosen, pipeline = policy_of(settings, run.policy_hash)
    # Ansible runs where the run's own does: here, or on the node of the host's site.
    via = settings.sites.get(site_of(inventory.hosts[host]), "")
    whom = settings.whom(inventory.subset([host]), via)
    found = from_hosts(whom, pipeline.targets(), hosts=[host])
    if not found.facts:
        raise KdoError("it does not answer", where=host, why="; ".join(p.why or p.what for p in found.problems))
    test = CrashTest(pipeline, whom, found.facts[0], chosen.waiver_set(pipeline))
    with only_one():
        expected = test.expected()
        proof, _ = crash_and_remember(test, test.check(), expected, _TIMEOUT, store.url)
    return proof
