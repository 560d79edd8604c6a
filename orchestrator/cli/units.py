# SPDX-License-Identifier: Apache-2.0
"""``kdo units``: the group; one module per command."""

from __future__ import annotations

import click

from orchestrator.cli.lazy import LazyGroup

_VERBS = {
    "list": "List the systemd units that come with kdo.",
    "show": "Print a unit as it would be installed.",
    "install": "Write units below /etc/systemd/system; nothing is enabled or started.",
}


@click.group(cls=LazyGroup, verbs=_VERBS, modules="orchestrator.cli.units_{}", heading="Commands")
def command() -> None:
    """Show and install systemd units."""
