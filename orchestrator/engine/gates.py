# SPDX-License-Identifier: Apache-2.0
"""What is asked between two waves besides the rollout's own limits.

Nothing is kept of an answer but what is on record anyway, so a gate can be asked at any time: a run whose controller is gone
stands before the same gate when it is resumed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.documents.plan import Rollout
from orchestrator.engine.begin import begin_sweep
from orchestrator.engine.job import policy_of, settings_of
from orchestrator.fleet.inventory import Inventory
from orchestrator.store import runs
from orchestrator.store.hosts import Seen, keep_seen
from orchestrator.store.runs import HostOf, RunRow, WaveRow
from orchestrator.store.store import Store, now

#: States of a host in a run in which it is as the policy wants it, running kernel included.
AS_WANTED = ("changed", "compliant", "nothing", "waived", "proof expired")


def look_again(
    store: Store, inventory: Inventory, go: Callable[[RunRow], str], note: Callable[[str], None], run: RunRow, wave: WaveRow
) -> str:  # fmt: skip
    """Look again at the hosts of a wave that were well, and count those that are not any more. ``go`` does a sweep.

    A host that has lost its capture kernel, or has gone, while the rollout waited (``rollout.soak``) has failed in this run:
    the limits see it, and ``runs resume --retry`` begins it again. Raises :class:`KeyboardInterrupt` when the sweep was interrupted.
    """
    names = [h.host for h in runs.hosts_of(store.database, run.id, wave=wave.number, states=AS_WANTED)]
    if not names:
        return ""
    note(f"looking again at {len(names):,} hosts")
    settings = settings_of(run.settings)
    _, pipeline = policy_of(settings, run.policy_hash)
    only = msgspec.structs.replace(settings, rollout=Rollout(), prove=False, reboot=False)
    part = Inventory({n: inventory.hosts[n] for n in names if n in inventory.hosts}, inventory.folder)
    sweep = begin_sweep(store, pipeline.policy, part, only, "look")
    state = go(sweep)
    if state == "interrupted":
        raise KeyboardInterrupt
    if state != "done":
        return f"the second look at wave {wave.number + 1} was {state} (run {sweep.id})"
    worse = runs.hosts_of(store.database, sweep.id, states=("failed", "unreachable", "drift"))
    found = [_no_longer(h) for h in worse]
    at = now()
    store.database.do(lambda s: keep_seen(s, run.id, at, found))
    return ""


def _no_longer(row: HostOf) -> Seen:
    """What the run says of a host that was well after its change."""
    result = "unreachable" if row.state == "unreachable" else "failed"
    why = f"well after its change, and not any more: {row.why}"[:500]
    return Seen(row.host, row.state, why, answered=False, result=result)
