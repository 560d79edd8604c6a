# SPDX-License-Identifier: Apache-2.0
"""``kdo bundle show``."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import format_option, write_json


@click.command()
@click.argument("file", metavar="BUNDLE", type=click.Path(dir_okay=False))
@format_option("table", "json")
def command(file: str, output: str) -> int:
    """Show what is in a bundle. Nothing is said of its signature: `kdo bundle verify` does."""
    from orchestrator.agent.bundle import MAX_BUNDLE, fingerprint, parse
    from orchestrator.agent.pull import local_bytes
    from orchestrator.reports.text import line, table

    data = local_bytes(Path(file), "bundle", MAX_BUNDLE)
    bundle = parse(data, file)
    if output == "json":
        write_json(bundle)
        return 0
    line(f"bundle {bundle.serial} of policy {bundle.policy_name} ({bundle.policy}), sha256 {fingerprint(data)}")
    line(f"  counts {f'until {bundle.expires}' if bundle.expires else 'without end'}")
    also = "; other versions may take it" if bundle.any_tool else ""
    line(f"  made with kdump-orchestrator {bundle.tool}, policy and knowledge {bundle.policy_hash[:12]}{also}")
    rows = [(name, str(len(text.encode()))) for name, text in sorted(bundle.files.items())]
    table(("FILE", "BYTES"), rows, indent=2)
    return 0
