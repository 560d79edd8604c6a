# SPDX-License-Identifier: Apache-2.0
"""``kdo target keys``."""

from __future__ import annotations

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
)
from orchestrator.cli.target import chosen


@click.command()
@click.argument("host", nargs=-1)
@host_options()
@click.option("--key", metavar="PATH", default="", help="Private key on the hosts. Default: every key of root.")
@format_option("table", "json")
def command(host: tuple[str, ...], hosts: Hosts, key: str, output: str) -> int:
    """Show the public keys that hosts log in with at their dump server. Private keys are never read."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.documents.decision import SSH_KEY
    from orchestrator.reports.text import line

    found = gather(chosen(hosts, host), ["/var/crash", f"key:{key or SSH_KEY}"])
    seen = [f for f in found.facts if not host or not hosts.facts or f.host in host]
    rows = [(f.host, [k for k in f.ssh.keys or [] if not key or k.path == key]) for f in seen]
    if output == "json":
        entries = [{"host": name, "keys": keys} for name, keys in rows]
        write_json({"format_version": FORMAT_VERSION, "hosts": entries, "problems": problem_data(found.problems)})
    else:
        for name, keys in rows:
            for k in keys:
                line(f"{name} {k.path}: {k.public or 'no public half beside it'}")
            if not keys:
                line(f"{name}: there is no {key or 'key of root'}", "yellow")
    report_problems(found.problems)
    return exit_code(found.problems, pending=any(not any(k.public for k in keys) for _, keys in rows))
