# SPDX-License-Identifier: Apache-2.0
"""``kdo facts``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import write_line
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from orchestrator.documents.facts import Facts

_EXAMPLE = "policies/examples/fleet.jsonl"


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST]...")
@click.option("--example", is_flag=True, help="Print a made-up fleet of twelve hosts instead, to try other verbs on.")
@store_option
def command(names: tuple[str, ...], example: bool, store_url: str | None) -> int:
    """Print the last facts on record as JSON lines, for --facts of other verbs. HOST may hold wildcards.

    kdo facts | kdo policy diff old.yaml new.yaml --facts -
    """
    found = False
    for facts in _example(names) if example else _recorded(names, store_url):
        found = True
        write_line(facts)
    if not found:
        if example:
            raise InvalidInput("no such host in the example", where=", ".join(names), fix="kdo facts --example")
        raise InvalidInput("no facts on record", where=", ".join(names), fix="kdo sweep -i INVENTORY")
    return Exit.OK


def _recorded(names: tuple[str, ...], store_url: str | None) -> Iterator[Facts]:
    from orchestrator.store.hosts import facts_of
    from orchestrator.store.store import Store

    with Store(store_url, create=False) as store:
        for _, facts in facts_of(store, names):
            yield facts


def _example(names: tuple[str, ...]) -> Iterator[Facts]:
    from fnmatch import fnmatchcase

    from orchestrator.fleet.collect import from_files
    from orchestrator.resources import data_path

    for facts in from_files([str(data_path(_EXAMPLE))]).facts:
        if not names or any(fnmatchcase(facts.host, name) for name in names):
            yield facts
