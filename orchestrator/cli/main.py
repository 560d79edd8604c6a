# SPDX-License-Identifier: Apache-2.0
"""The command group. Verbs are imported when they are used, so that ``kdo --help`` stays quick."""

from __future__ import annotations

import importlib
from typing import Any

import click

from orchestrator import __version__

_VERBS = {
    "detect": "Say what each host is: architecture, hypervisor, role, with the evidence.",
    "explain": "Show every rule and every clause behind one host's decision.",
    "plan": "Dry run: what would change on each host, and why.",
    "apply": "Do exactly what a plan says, as one transaction per host.",
    "validate": "Check, with evidence, that kdump is armed as decided.",
    "rollback": "Put back what the last transaction on a host changed.",
    "policy": "Work on policies: lint.",
    "doctor": "Find what is missing on this machine, and say how to mend it.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command: Any = importlib.import_module(f"orchestrator.cli.{cmd_name}").command
        return command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="kdo")
def cli() -> None:
    """Make kernel crash dumps work on every Linux host of a fleet, and prove it.

    Without -i a verb is about this machine. Nothing is ever written to a host except by `apply` and `rollback`.
    Exit codes: 0 fine, 1 our fault, 2 changes pending or a violation, 3 some hosts failed, 4 some unreachable,
    5 invalid policy, inventory, facts or plan, 6 stale plan, 130 interrupted.
    """
