# SPDX-License-Identifier: Apache-2.0
"""``kdo detect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.common import (
    Hosts,
    exit_code,
    format_option,
    gather,
    host_options,
    problem_data,
    report_problems,
    write_json,
    write_line,
)
from orchestrator.errors import InvalidInput


@click.command()
@host_options(lanes=True)
@click.option(
    "--root", type=click.Path(file_okay=False), metavar="DIR", help="A mounted or recorded tree instead of a live host."
)
@click.option(
    "--record",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Also write what was read as a tree, stripped of serial numbers, keys and addresses.",
)
@click.option(
    "--udev",
    type=click.Choice(("auto", "pyudev", "udevadm", "tree")),
    default="auto",
    help="Where the host's devices are read from.",
    hidden=True,
)
@format_option("table", "json", "jsonl")
def command(hosts: Hosts, root: str | None, record: str | None, udev: str, output: str) -> int:
    """Say what each host is: architecture, hypervisor, role, with the evidence. Read-only."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.fleet.collect import from_hosts, from_tree
    from orchestrator.platforms.classify import classify
    from orchestrator.reports.hosts import detected

    if root is not None:
        if hosts.inventory or hosts.facts or record:
            raise InvalidInput(
                "--root stands alone", why="a tree is read instead of hosts", fix="remove -i, --facts or --record"
            )
        found = from_tree(Path(root), ["/var/crash"])
    elif record is not None or udev != "auto":
        if hosts.lane == "fast":
            why = "records are made through Ansible"
            raise InvalidInput("--lane fast does not go with --record", why=why, fix="remove --lane")
        found = from_hosts(hosts.whom(), ["/var/crash"], record=record is not None, udev=udev)
    else:
        found = gather(hosts, ["/var/crash"])
    items = [(f, classify(f)) for f in found.facts]
    entries: list[dict[str, Any]] = [{"host": f.host, "platform": p, "facts": f} for f, p in items]
    if record is not None:
        from orchestrator.fleet.record import write_trees

        write_trees(Path(record), found.trees)
    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "hosts": entries, "problems": problem_data(found.problems)})
    elif output == "jsonl":
        for entry in entries:
            write_line({"format_version": FORMAT_VERSION, **entry})
    elif items:
        detected(items)
    report_problems(found.problems)
    return exit_code(found.problems)
