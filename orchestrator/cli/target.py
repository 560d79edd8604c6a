# SPDX-License-Identifier: Apache-2.0
"""``kdo target``: the group; one module per command."""

from __future__ import annotations

import click

from orchestrator.cli.common import Hosts
from orchestrator.cli.lazy import LazyGroup
from orchestrator.errors import InvalidInput

_VERBS = {
    "keys": "Show the public keys that hosts log in with at their dump server.",
    "push": "Put the public keys of hosts into the dump server's authorized_keys.",
}


@click.group(cls=LazyGroup, verbs=_VERBS, modules="orchestrator.cli.target_{}", heading="Commands")
def command() -> None:
    """Prepare dump servers for hosts."""


def chosen(hosts: Hosts, names: tuple[str, ...]) -> Hosts:
    """The hosts that a command's arguments name."""
    if len(names) > 1 and hosts.limit:
        raise InvalidInput("--limit and several hosts exclude each other", fix="give one of them")
    return hosts.narrowed(",".join(names) or None)
