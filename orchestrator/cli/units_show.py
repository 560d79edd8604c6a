# SPDX-License-Identifier: Apache-2.0
"""``kdo units show``."""

from __future__ import annotations

import click


@click.command()
@click.argument("name", metavar="UNIT")
@click.option("--exec", "kdo", metavar="PATH", help="Absolute path of kdo. Default: the running one.")
def command(name: str, kdo: str | None) -> int:
    """Print a unit as it would be installed."""
    from orchestrator.agent.services import own_path, unit

    click.echo(unit(name).text(own_path(kdo)), nl=False)
    return 0
