# SPDX-License-Identifier: Apache-2.0
"""``kdo worker``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from orchestrator.fleet.inventory import Inventory

_FRESH = 600.0  # seconds that an inventory is believed


class _Inventories:
    """The worker's own inventory, or each run's; read again from time to time."""

    def __init__(self, url: str, own: tuple[str, ...]) -> None:
        self.url, self.own = url, own
        self._read: dict[tuple[str, ...], tuple[float, Inventory]] = {}

    def variables(self, run: str, shard: int) -> bytes:
        """The inventory of the shard's hosts that are still open."""
        from orchestrator.engine.job import settings_of
        from orchestrator.fleet.inventory import resolve
        from orchestrator.fleet.runner import Whom
        from orchestrator.store import runs
        from orchestrator.store.store import Store

        with Store(self.url, patient=True) as store:
            settings = settings_of(runs.get(store.database, run).settings)
            names = [h.host for h in runs.hosts_of(store.database, run, shard=shard, states=runs.OPEN)]
        sources = self.own or tuple(settings.inventory)
        read = self._read.get(sources)
        if read is None or time.monotonic() - read[0] > _FRESH:
            read = (time.monotonic(), resolve(Whom(sources)))
            self._read[sources] = read
        return read[1].subset(n for n in names if n in read[1].hosts)


@click.command()
@click.option("--queue", "sites", multiple=True, metavar="SITE", default=("default",), show_default=True,
              help="Take shards of the hosts of this site (kdo_site in the inventory, or a tag site=SITE).")  # fmt: skip
@click.option("-i", "--inventory", multiple=True, metavar="INVENTORY",
              help="Where this worker finds its hosts, with their keys. Default: the inventory that the run names.")  # fmt: skip
@click.option(
    "--concurrency", type=click.IntRange(1, 256), default=1, show_default=True, help="Shards at the same time."
)
@click.option("--until-empty", is_flag=True, help="End when nothing is left to do.")
@store_option
def command(
    sites: tuple[str, ...], inventory: tuple[str, ...], concurrency: int, until_empty: bool, store_url: str | None
) -> int:
    """Do shards of runs that were begun elsewhere with --engine queue. Ends with SIGTERM, after what is under way."""
    import asyncio

    from orchestrator.engine.queue import ShardWorker, prepare
    from orchestrator.fleet.inventory import resolve
    from orchestrator.fleet.runner import Whom
    from orchestrator.store.store import Store

    with Store(store_url) as store:
        prepare(store)
        url = store.url
    if inventory:
        resolve(Whom(tuple(inventory)))  # one that cannot be read is said now, not when the first shard comes
    if any(not s.strip() for s in sites):
        raise InvalidInput("a queue needs a name", where="--queue")

    def say(text: str) -> None:
        click.echo(text, err=True)

    worker = ShardWorker(url, list(sites), concurrency, _Inventories(url, tuple(inventory)).variables, say)
    say(f"worker {worker.name}: {', '.join(sites)}, {concurrency} at a time")
    asyncio.run(worker.run(wait=not until_empty))
    return Exit.OK
