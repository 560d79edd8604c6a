# SPDX-License-Identifier: Apache-2.0
"""``kdo doctor``."""

from __future__ import annotations

import click

from orchestrator.cli.common import format_option, write_json
from orchestrator.errors import Exit


@click.command()
@click.option("--lab", is_flag=True, help="Also what is needed to boot guests.")
@format_option("table", "json")
def command(lab: bool, output: str) -> int:
    """Find what is missing on this machine, and say the one command that mends it. Changes nothing."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.doctor import examine
    from orchestrator.reports.text import line

    findings = examine(lab=lab)
    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "checks": findings})
    else:
        for f in findings:
            line(
                f"{'ok  ' if f.ok else 'MISSING' if f.needed else 'note'}  {f.what}: {f.seen}",
                "green" if f.ok else "red" if f.needed else "yellow",
            )
            if not f.ok:
                line(f"      fix: {f.fix}")
    return Exit.OK if all(f.ok or not f.needed for f in findings) else Exit.PENDING
