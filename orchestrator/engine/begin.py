# SPDX-License-Identifier: Apache-2.0
"""How a run begins: its hosts in waves, its waves in shards, all of it on record before the first host is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from orchestrator import __version__
from orchestrator.documents.plan import Rollout
from orchestrator.engine.job import Settings
from orchestrator.fleet.inventory import Host, Inventory
from orchestrator.fleet.rollout import Member, Wave, arrange
from orchestrator.policy.load import Policy
from orchestrator.store import runs
from orchestrator.store.hosts import Document, states_of
from orchestrator.store.runs import Placed, RunRow
from orchestrator.store.store import Store, now, put_documents, who

#: A tag (SITE_TAG=NAME) or the variable kdo_site says which workers are near a host.
SITE_VARIABLE, SITE_TAG = "kdo_site", "site"
_PLANS = 500  # that are written in one transaction


def site_of(host: Host) -> str:
    """Where the workers of this host are; "" = anywhere."""
    value = host.variables.get(SITE_VARIABLE)
    return value if isinstance(value, str) else Member(host.name, host.groups, host.tags).label(SITE_TAG)


def _entered(
    store: Store, kind: str, policy: Policy, inventory: Inventory, settings: Settings, plan_hash: str, at: str
) -> RunRow:
    return RunRow(
        id=runs.new_id(datetime.fromisoformat(at)), kind=kind, state="planned", who=who(),
        tool=f"kdump-orchestrator {__version__}", policy=policy.name, policy_hash=policy.hash,
        inventory_hash=inventory.hash, plan_hash=plan_hash, settings=settings.data(), hosts=0, created=at, started=None,
        ended=None, why="",
    )  # fmt: skip


def _placed(
    waves: Sequence[Wave], inventory: Inventory, size: int, plans: Mapping[str, str], before: Mapping[str, str]
) -> Iterator[Placed]:
    """Hosts in shards: of one wave, of one site, at most ``size``."""
    number = 0
    for index, wave in enumerate(waves):
        sites: dict[str, list[str]] = {}
        for name in wave.hosts:
            host = inventory.hosts.get(name)
            sites.setdefault(site_of(host) if host is not None else "", []).append(name)
        for site in sorted(sites):
            names = sites[site]
            for begin in range(0, len(names), size):
                for name in names[begin : begin + size]:
                    yield Placed(name, index, number, site, plans.get(name, ""), before.get(name, ""))
                number += 1


def waves_of(inventory: Inventory, names: Iterable[str], rollout: Rollout) -> list[Wave]:
    """The waves in which these hosts would be changed."""
    found = ((name, inventory.hosts.get(name, Host(name))) for name in sorted(names))
    return arrange([Member(name, host.groups, host.tags) for name, host in found], rollout)


def begin_sweep(store: Store, policy: Policy, inventory: Inventory, settings: Settings, kind: str = "sweep") -> RunRow:
    """A look at every host of the inventory; ``kind`` "look" where it is a part of another run."""
    run = _entered(store, kind, policy, inventory, settings, "", now())
    runs.create(store.database, run)
    names = sorted(inventory.hosts)
    before = states_of(store.database, names)
    runs.place(store.database, run.id, _placed([Wave("", names)], inventory, settings.shard, {}, before))
    return runs.get(store.database, run.id)


def begin_apply(
    store: Store, policy: Policy, inventory: Inventory, settings: Settings, plans: Iterable[tuple[str, Document | str]],
    plan_hash: str, kind: str = "apply",
) -> RunRow:  # fmt: skip
    """Changes of some hosts, in the waves of the rollout. ``plans``: host and its plan, or the hash under which it is stored."""
    run = _entered(store, kind, policy, inventory, settings, plan_hash, now())
    hashes: dict[str, str] = {}
    fresh: list[tuple[str, str, bytes]] = []

    def keep() -> None:
        """Few at a time: memory does not grow with the plans."""
        store.database.do(lambda s: put_documents(s, fresh))
        fresh.clear()

    for name, plan in plans:
        hashes[name] = plan if isinstance(plan, str) else plan.hash
        if isinstance(plan, Document):
            fresh.append((plan.hash, plan.kind, plan.body))
            if len(fresh) >= _PLANS:
                keep()
    keep()
    waves = waves_of(inventory, hashes, settings.rollout)
    runs.create(store.database, run)
    before = states_of(store.database, sorted(hashes))
    names = {n: w.name for n, w in enumerate(waves)}
    runs.place(store.database, run.id, _placed(waves, inventory, settings.shard, hashes, before), names)
    return runs.get(store.database, run.id)


def begin_ingest(store: Store, policy: Policy) -> RunRow:
    """Reports that hosts have sent: one wave, whose hosts are known when they have been read."""
    run = _entered(store, "pull", policy, Inventory({}), Settings(), "", now())
    runs.create(store.database, run)
    runs.place(store.database, run.id, [])
    return runs.get(store.database, run.id)
