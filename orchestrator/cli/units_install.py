# SPDX-License-Identifier: Apache-2.0
"""``kdo units install``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("names", metavar="UNIT...", nargs=-1, required=True)
@click.option(
    "--root",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Below which root, e.g. that of an image that is being built.",
)
@click.option("--exec", "kdo", metavar="PATH", help="Absolute path of kdo. Default: the running one.")
def command(names: tuple[str, ...], root: Path, kdo: str | None) -> int:
    """Write units below /etc/systemd/system, with the path of kdo in them. Nothing is enabled or started."""
    from orchestrator.agent.services import enabling, install, own_path
    from orchestrator.reports.text import line

    for path in install(list(names), root, own_path(kdo)):
        line(f"wrote {path}")
    line(f"to start: {enabling(list(names))}")
    return 0
