# SPDX-License-Identifier: Apache-2.0
"""``kdo rollback``."""

from __future__ import annotations

import click

from orchestrator.cli.common import Hosts, Ticker, format_option, host_options, write_json
from orchestrator.cli.fleet import remember, store_option
from orchestrator.errors import Exit


@click.command()
@click.argument("host", required=False)
@host_options(facts=False)
@click.option("--force", is_flag=True, help="Also when somebody has changed a file since the transaction.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@store_option
@format_option("table", "json")
def command(host: str | None, hosts: Hosts, force: bool, yes: bool, store_url: str | None, output: str) -> int:
    """Put back the files and kernel arguments that the last transaction on HOST changed."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.act import rollback
    from orchestrator.reports.plans import outcomes
    from orchestrator.reports.text import line

    hosts = hosts.narrowed(host)
    whom = hosts.whom()
    subject = host or whom.limit or (", ".join(whom.inventory) if whom.inventory else "this machine")
    if not yes:
        click.confirm(f"Undo the last transaction on {subject}?", abort=True, err=True)
    ticker = Ticker("rolling back")
    results = rollback(whom, None, force=force, progress=ticker)
    ticker.close()
    back = [(o.host, {"transaction": o.transaction, "state": o.state}) for o in results if o.state != "unreachable"]
    remember(store_url, "rolled back", back, state="drift" if any(o.changed for o in results) else "")
    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "hosts": results})
    else:
        outcomes(results)
        if any(o.changed for o in results):
            line("what had been loaded or booted before comes back with the next reboot")
    states = {o.state for o in results}
    if states - {"rolled-back", "nothing", "unreachable"}:
        return Exit.FAILED
    return Exit.UNREACHABLE if "unreachable" in states else Exit.OK
