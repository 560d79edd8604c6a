# SPDX-License-Identifier: Apache-2.0
"""``kdo rollback``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import Hosts, Ticker, format_option, host_options, write_json
from orchestrator.cli.fleet import remember, store_option
from orchestrator.errors import Exit

if TYPE_CHECKING:
    from orchestrator.documents.verdict import Outcome


@click.command()
@click.argument("host", required=False)
@host_options(facts=False)
@click.option("--check", is_flag=True, help="Say what would go back, and change nothing.")
@click.option("--force", is_flag=True, help="Also when somebody has changed a file since the transaction.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@store_option
@format_option("table", "json")
def command(
    host: str | None, hosts: Hosts, check: bool, force: bool, yes: bool, store_url: str | None, output: str
) -> int:
    """Put back the files and kernel arguments that the last transaction on HOST changed."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.act import rollback
    from orchestrator.reports.plans import outcomes
    from orchestrator.reports.text import line

    hosts = hosts.narrowed(host)
    whom = hosts.whom()
    subject = host or whom.limit or (", ".join(whom.inventory) if whom.inventory else "this machine")
    if not yes and not check:
        click.confirm(f"Undo the last transaction on {subject}?", abort=True, err=True)
    ticker = Ticker("looking" if check else "rolling back")
    results = rollback(whom, None, force=force, check=check, progress=ticker)
    ticker.close()
    if not check:
        _remember(store_url, results)
    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "hosts": results})
    else:
        outcomes(results)
        if check:
            line("checked only: nothing was changed")
        elif any(o.changed for o in results):
            line("what had been loaded or booted before comes back with the next reboot")
    states = {o.state for o in results}
    if states - {"rolled-back", "nothing", "check", "unreachable"}:
        return Exit.FAILED
    return Exit.UNREACHABLE if "unreachable" in states else Exit.OK


def _remember(store_url: str | None, results: Sequence[Outcome]) -> None:
    back = [(o.host, {"transaction": o.transaction, "state": o.state}) for o in results if o.state != "unreachable"]
    remember(store_url, "rolled back", back, state="drift" if any(o.changed for o in results) else "")
