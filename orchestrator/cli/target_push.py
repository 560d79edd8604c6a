# SPDX-License-Identifier: Apache-2.0
"""``kdo target push``."""

from __future__ import annotations

import re
from pathlib import Path

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
from orchestrator.errors import InvalidInput

_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}@[A-Za-z0-9_.:-]{1,253}")


@click.command()
@click.argument("host", nargs=-1, required=True)
@host_options(facts=False)
@click.option("--to", "account", required=True, metavar="USER@SERVER", help="Account that receives the dumps.")
@click.option("--key", metavar="PATH", default="", help="Private key on the hosts. Default: kdump's own.")
@click.option(
    "--ssh-config",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Configuration of this machine's ssh, as ssh -F takes it. Default: its own.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@format_option("table", "json")
def command(
    host: tuple[str, ...], hosts: Hosts, account: str, key: str, ssh_config: str | None, yes: bool, output: str
) -> int:
    """Put the public keys of HOSTs into the dump server's authorized_keys, through this machine's own ssh.

    A key that is there already stays as it is; nothing else is written, and nothing at all on the hosts.
    """
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.documents.decision import SSH_KEY
    from orchestrator.fleet.login import key_of, push
    from orchestrator.reports.text import line

    if not _ACCOUNT.fullmatch(account):
        raise InvalidInput("that is no account", where="--to", fix="--to user@server")
    path = key or SSH_KEY
    found = gather(chosen(hosts, host), ["/var/crash", f"key:{path}"])
    keys = {f.host: k.public for f in found.facts if (k := key_of(f, path)) is not None and k.public}
    lacking = [f.host for f in found.facts if f.host not in keys]
    if keys and not yes:
        for name, public in keys.items():
            click.echo(f"{name}: {public}", err=True)
        question = f"Let these {len(keys)} keys log in as {account}? Type the account to go on"
        if click.prompt(question, err=True, default="", show_default=False) != account:
            raise click.Abort
    done = push(list(keys.items()), account, Path(ssh_config) if ssh_config else None) if keys else {}
    if output == "json":
        entries = [{"host": name, "key": keys[name], "added": added} for name, added in done.items()]
        write_json(
            {
                "format_version": FORMAT_VERSION,
                "account": account,
                "hosts": entries,
                "without_key": lacking,
                "problems": problem_data(found.problems),
            }
        )
    else:
        for name, added in done.items():
            line(f"{name}: {'added to' if added else 'already in'} authorized_keys of {account}: {keys[name]}")
        for name in lacking:
            line(f"{name}: there is no {path} with its public half; kdo apply makes it", "yellow")
    report_problems(found.problems)
    return exit_code(found.problems, pending=bool(lacking))
