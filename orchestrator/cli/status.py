# SPDX-License-Identifier: Apache-2.0
"""``kdo status``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import format_option, write_json, write_line
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput, did_you_mean

if TYPE_CHECKING:
    from orchestrator.store.store import Store


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST]...")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only hosts in this state; lists them.")
@click.option("--tag", default="", metavar="TAG", help="Only hosts with this tag (kdo_tags of the inventory).")
@click.option("--limit", type=click.IntRange(1), default=None, metavar="N", help="List at most so many hosts.")
@store_option
@format_option("table", "json", "jsonl")
def command(
    names: tuple[str, ...], states: tuple[str, ...], tag: str, limit: int | None, store_url: str | None, output: str
) -> int:
    """Say what state every host was in when it was last looked at. No host is asked.

    HOST may hold wildcards (web-*). Without HOST, --state and --tag: the numbers, by state and by platform.
    """
    from datetime import UTC, datetime

    from orchestrator.reports.status import SILENT_DAYS, fleet_status, silent_since
    from orchestrator.store.hosts import FINE, STATES, numbers
    from orchestrator.store.store import Store

    for state in states:
        if state not in STATES:
            raise InvalidInput(f"there is no state {state!r}", where="--state", why=f"states are: {', '.join(STATES)}",
                               fix=did_you_mean(state, STATES) or "give one of them")  # fmt: skip
    with Store(store_url, create=False) as store:
        if names or states or tag:
            return _listed(store, names, states, tag, limit, output)
        found = numbers(store.database, silent_since(datetime.now(UTC)))
    if output == "table":
        from orchestrator.reports.fleet import states as show

        show(found.states, found.cells, found.proofs, found.silent, SILENT_DAYS)
    else:
        data = fleet_status(found)
        write_json(data) if output == "json" else write_line(data)
    return Exit.PENDING if set(found.states).difference(FINE) else Exit.OK


def _listed(
    store: Store, names: tuple[str, ...], states: tuple[str, ...], tag: str, limit: int | None, output: str
) -> int:
    from dataclasses import asdict

    from orchestrator.reports.fleet import hosts as show
    from orchestrator.reports.fleet import one_host
    from orchestrator.store.browse import runs_of_host
    from orchestrator.store.hosts import history, hosts

    rows = hosts(store.database, states=states, names=names, tag=tag, limit=limit)
    if output != "table":
        if output == "jsonl":
            for row in rows:
                write_line({"format_version": "1.0", **asdict(row)})
            return Exit.OK
        write_json({"format_version": "1.0", "hosts": [asdict(r) for r in rows]})
        return Exit.OK
    if len(names) == 1 and "*" not in names[0] and "?" not in names[0]:
        found = list(rows)
        if not found:
            raise InvalidInput(f"host {names[0]!r} is not on record", fix="kdo sweep -i INVENTORY")
        past = runs_of_host(store.database, found[0].host, 10)
        one_host(found[0], history(store.database, found[0].host), [h for _, _, h in past], [run for run, _, _ in past])
    elif not show(rows):
        click.echo("no host on record is like that", err=True)
    return Exit.OK
