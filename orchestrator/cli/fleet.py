# SPDX-License-Identifier: Apache-2.0
"""Options of the verbs that work on a fleet and remember it, and the way from them to a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import Hosts
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from orchestrator.documents.plan import Rollout
    from orchestrator.documents.proof import Proof
    from orchestrator.engine.campaign import Gate
    from orchestrator.engine.executor import Executor
    from orchestrator.engine.job import Settings
    from orchestrator.fleet.inventory import Inventory
    from orchestrator.store.runs import RunRow
    from orchestrator.store.store import Store

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

store_option = click.option(
    "--store", "store_url", metavar="URL", default=None, envvar="KDO_STORE", show_envvar=True,
    help="Where the fleet is remembered: a file, or postgresql://HOST/DATABASE. Default: a file of your own.",
)  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """Who does the shards, and how large they are."""

    name: str = "local"
    shard: int = 200
    parallel: int = 0
    sites: tuple[str, ...] = ()

    def check(self, store: Store) -> None:
        """Raise :class:`InvalidInput` before a run is entered that nobody could do."""
        if self.name == "queue":
            from orchestrator.engine.queue import prepare

            prepare(store)

    def nodes(self) -> dict[str, str]:
        """Site → execution node."""
        found = {}
        for text in self.sites:
            site, equals, node = text.partition("=")
            if not equals or not node or node.startswith("-"):
                raise InvalidInput(f"--site {text!r} names no node", fix="give SITE=USER@HOST")
            found[site] = node
        return found


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--store, --engine, --shard-size, --parallel, --site; the verb gets ``store_url`` and ``engine``."""

    @wraps(function)
    def run(*args: Any, engine_name: str, shard: int, parallel: int, sites: tuple[str, ...], **kwargs: Any) -> Any:
        return function(*args, engine=Engine(engine_name, shard, parallel, sites), **kwargs)

    options = [
        store_option,
        click.option("--engine", "engine_name", type=click.Choice(("local", "queue", "ssh")), default="local", show_default=True,
                     help="Who does the work: processes here, workers on a PostgreSQL queue (kdo worker), or nodes by SSH."),
        click.option("--shard-size", "shard", type=click.IntRange(1, 5000), default=200, show_default=True, metavar="N",
                     help="Hosts that one worker process does at a time."),
        click.option("--parallel", type=click.IntRange(0, 256), default=0, metavar="N",
                     help="Shards at the same time. Default: one for each CPU."),
        click.option("--site", "sites", multiple=True, metavar="SITE=USER@HOST",
                     help="With --engine ssh: the node that runs Ansible for the hosts of a site."),
    ]  # fmt: skip
    for option in reversed(options):
        run = option(run)
    return run


def settings_for(
    hosts: Hosts, chosen: PolicyChoice, engine: Engine, rollout: Rollout | None = None, **more: Any
) -> Settings:
    """The settings of a run, as its record keeps them."""
    from orchestrator.documents.plan import Rollout
    from orchestrator.engine.job import Settings

    parallel = engine.parallel or os.cpu_count() or 1
    rollout = rollout or Rollout()
    if rollout.reboots is not None:
        parallel = min(parallel, rollout.reboots)
    return Settings(
        inventory=[_absolute(i) for i in hosts.inventory], limit=hosts.limit, forks=hosts.forks, become=hosts.become,
        policy=_absolute(chosen.file) if chosen.file else None, waivers=[_absolute(w) for w in chosen.waivers],
        signers=_absolute(chosen.allowed_signers) if chosen.allowed_signers else None, shard=engine.shard, parallel=parallel,
        engine=engine.name, sites=engine.nodes(), rollout=rollout, folder=str(Path.cwd()), **more,
    )  # fmt: skip


def _absolute(name: str) -> str:
    """A file by its whole name, so that a run can be resumed from elsewhere; what is no file stays as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def executor_for(store: Store, settings: Settings) -> Executor:
    """Who does the shards of a run."""
    if settings.engine == "queue":
        from orchestrator.engine.queue import QueueExecutor

        return QueueExecutor(store)
    from orchestrator.engine.executor import LocalExecutor

    return LocalExecutor(settings.parallel)


def carry_on(store: Store, run: RunRow, inventory: Inventory, consent: str = "") -> str:
    """Go through a run; returns the state it is left in. ``consent``: the host that may be crashed to prove the canary."""
    from functools import partial

    from orchestrator.engine.campaign import Campaign
    from orchestrator.engine.job import settings_of
    from orchestrator.reports.progress import Lines
    from orchestrator.store import runs

    settings = settings_of(run.settings)
    executor = executor_for(store, settings)
    lines = Lines(bad=lambda r, wave: runs.hosts_of(store.database, r.id, wave=wave.number, states=runs.BAD))
    gates: list[Gate] = []
    if settings.rollout.soak and run.kind not in runs.LOOKING:
        from orchestrator.engine.gates import look_again

        gates.append(partial(look_again, store, inventory, lambda r: carry_on(store, r, inventory), lines.note))
    if settings.prove:
        from orchestrator.cli.gate import prove_canary

        gates.append(partial(prove_canary, store, inventory, consent))
    return Campaign(store, run, inventory, executor, lines, gates).go()


def remember(
    store_url: str | None, what: str, hosts: Sequence[tuple[str, Mapping[str, Any]]], *, proof: Proof | None = None,
    state: str = "",
) -> None:  # fmt: skip
    """Note what was done to hosts in the audit trail, and a proof or a new state of theirs beside it.

    It has been done, whatever becomes of the record: a store that cannot be reached is said, and is no failure.
    """
    import secrets

    from orchestrator.errors import KdoError
    from orchestrator.store import audit
    from orchestrator.store.database import Statements
    from orchestrator.store.hosts import keep_proof, set_state
    from orchestrator.store.store import Store, now, who

    key, at, by = secrets.token_hex(8), now(), who()
    try:
        with Store(store_url) as store:

            def work(s: Statements) -> None:
                for host, detail in hosts:
                    audit.append(
                        store.database, s, key=f"{key}:{host}", at=at, who=by, what=what, subject=host, detail=detail
                    )
                if state:
                    set_state(s, [h for h, _ in hosts], state, what, at)

            store.database.do(work)
            if proof is not None:
                keep_proof(store.database, proof)
    except KdoError as error:
        click.echo(f"note: this is not on record: {error}", err=True)


def exit_of(state: str, tally: dict[str, int]) -> int:
    """The exit code of a run: interrupted, stale, failed, unreachable, pending, fine; the worst wins."""
    if state in ("interrupted", "cancelled"):
        return Exit.INTERRUPTED
    if tally.get("stale"):
        return Exit.STALE
    from orchestrator.engine.look import GOOD
    from orchestrator.store.runs import OPEN

    if state in ("held", "failed") or any(n for s, n in tally.items() if s not in (*GOOD, *OPEN, "unreachable")):
        return Exit.FAILED
    if tally.get("unreachable"):
        return Exit.UNREACHABLE
    fine = ("compliant", "changed", "waived", "nothing", "proof expired")
    return Exit.PENDING if state == "paused" or any(n for s, n in tally.items() if s not in fine) else Exit.OK
