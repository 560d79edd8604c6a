# SPDX-License-Identifier: Apache-2.0
"""``kdo audit``."""

from __future__ import annotations

import click

from orchestrator.cli.common import write_json, write_line
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Who did what, when: an append-only trail in which every entry carries the hash of the one before."""


@command.command("list")
@click.option(
    "-n", "count", type=click.IntRange(1), default=50, show_default=True, help="How many entries, the newest."
)
@click.option("--all", "everything", is_flag=True, help="All entries.")
@click.option("--format", "output", type=click.Choice(("table", "jsonl")), default="table", show_default=True)
@store_option
def list_(count: int, everything: bool, output: str, store_url: str | None) -> int:
    """The entries, oldest first."""
    from orchestrator.reports.fleet import audit as show
    from orchestrator.store.audit import entries, newest
    from orchestrator.store.store import Store

    with Store(store_url, create=False) as store:
        found = entries(store.database) if everything else reversed(newest(store.database, count))
        if output == "jsonl":
            for e in found:
                write_line(e.document())
        else:
            show(found)
    return Exit.OK


@command.command()
@click.option(
    "--known", default="", metavar="HASH", help="A hash that you noted earlier: it must still be in the trail."
)
@click.option("--format", "output", type=click.Choice(("table", "json")), default="table", show_default=True)
@store_option
def verify(known: str, output: str, store_url: str | None) -> int:
    """Hold every entry against its hash and the one before. Exit code 2 when the trail was changed."""
    from dataclasses import asdict

    from orchestrator.reports.text import line
    from orchestrator.store.audit import verify as check
    from orchestrator.store.store import Store

    with Store(store_url, create=False) as store:
        found = check(store.database, known)
    if output == "json":
        write_json({"format_version": "1.0", **asdict(found)})
    elif found.broken is None:
        line(f"{found.entries} entries, unbroken; the last hash is {found.last or 'none'}", "green")
        line("note it elsewhere: kdo audit verify --known HASH then also finds a trail whose end was cut off", "dim")
    else:
        line(f"the trail is broken at entry {found.broken}: {found.why}", "bold red")
        line(f"the {found.entries} entries before it are whole", "dim")
    return Exit.OK if found.broken is None else Exit.PENDING
