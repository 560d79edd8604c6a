# SPDX-License-Identifier: Apache-2.0
"""``kdo policy``: the group; one module per command."""

from __future__ import annotations

import click

from orchestrator.cli.lazy import LazyGroup

_VERBS = {
    "lint": "Check policies: shape, meaning, rules that never apply, gaps, what no platform can honour.",
    "presets": "List the shipped policies that others can extend.",
    "schema": "Print the JSON Schema of policies, waivers or policy tests.",
}


@click.group(cls=LazyGroup, verbs=_VERBS, modules="orchestrator.cli.policy_{}", heading="Commands")
def command() -> None:
    """Work on policies."""
