# SPDX-License-Identifier: Apache-2.0
"""``kdo facts``."""

from __future__ import annotations

import click

from orchestrator.cli.common import write_line
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST]...")
@store_option
def command(names: tuple[str, ...], store_url: str | None) -> int:
    """Print the last facts on record as JSON lines, for --facts of other verbs. HOST may hold wildcards.

    kdo facts | kdo policy diff old.yaml new.yaml --facts -
    """
    from orchestrator.store.hosts import facts_of
    from orchestrator.store.store import Store

    found = False
    with Store(store_url, create=False) as store:
        for _, facts in facts_of(store, names):
            found = True
            write_line(facts)
    if not found:
        raise InvalidInput("no facts on record", where=", ".join(names), fix="kdo sweep -i INVENTORY")
    return Exit.OK
