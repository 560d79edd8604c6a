# SPDX-License-Identifier: Apache-2.0
"""``kdo bundle create``."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import policy_options
from orchestrator.errors import InvalidInput


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as e:
        fix = "e.g. 2027-03-31"
        raise InvalidInput(f"{text!r} is not a day", where="--expires", why=str(e), fix=fix) from None


@click.command()
@policy_options(waivers=True)
@click.option(
    "--serial", required=True, type=click.IntRange(1), help="Counts up: a host never goes back to a smaller one."
)
@click.option("--expires", metavar="YYYY-MM-DD", help="The last day on which hosts take it, UTC. Default: no end.")
@click.option(
    "--any-tool", is_flag=True, help="Hosts with another version of kdo, and so with other knowledge, may take it too."
)
@click.option(
    "-o", "--output", "save", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="The bundle."
)
def command(chosen: PolicyChoice, serial: int, expires: str | None, any_tool: bool, save: str) -> int:
    """Make one file of a policy, all that it builds on, and waivers. It counts only with a signature."""
    from orchestrator.agent.bundle import create
    from orchestrator.documents.base import pretty
    from orchestrator.files import write_atomically
    from orchestrator.knowledge.load import knowledge
    from orchestrator.reports.text import line

    known = knowledge()
    policy = chosen.file or "default"
    made = create(policy, chosen.waivers, serial, _day(expires), known, any_tool=any_tool, verify=chosen.verify())
    data = pretty(made)
    try:
        write_atomically(Path(save), data, 0o644)
    except OSError as e:
        raise InvalidInput("the bundle cannot be written", where=save, why=e.strerror or str(e)) from None
    end = f"until {made.expires}" if made.expires else "without end"
    line(
        f"{save}: bundle {serial} of policy {made.policy_name}, {len(made.files)} file{'s' if len(made.files) != 1 else ''}, {len(data)} bytes, {end}"
    )
    line(f"sign it: ssh-keygen -Y sign -n kdump-orchestrator -f KEY {save}")
    return 0
