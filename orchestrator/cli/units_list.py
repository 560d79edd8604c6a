# SPDX-License-Identifier: Apache-2.0
"""``kdo units list``."""

from __future__ import annotations

import click


@click.command()
def command() -> int:
    """List the systemd units that come with kdo."""
    from orchestrator.agent.services import units
    from orchestrator.reports.text import table

    table(("UNIT", "WHAT IT DOES"), [(u.name, u.description) for u in units().values()])
    return 0
