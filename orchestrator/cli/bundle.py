# SPDX-License-Identifier: Apache-2.0
"""``kdo bundle``: the group; one module per command."""

from __future__ import annotations

import click

from orchestrator.cli.lazy import LazyGroup

_VERBS = {
    "create": "Make one file of a policy, all that it builds on, and waivers; the same input gives the same bytes.",
    "show": "Show what is in a bundle, without trusting it.",
    "verify": "Check a bundle as a host would: signature, last day, content.",
}


@click.group(cls=LazyGroup, verbs=_VERBS, modules="orchestrator.cli.bundle_{}", heading="Commands")
def command() -> None:
    """Policies for hosts that fetch them (docs/pull-mode.md)."""
