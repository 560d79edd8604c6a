# SPDX-License-Identifier: Apache-2.0
"""``kdo policy``: the group; one module per command."""

from __future__ import annotations

import click

from orchestrator.cli.lazy import LazyGroup

_VERBS = {
    "lint": "Check policies: shape, meaning, rules that never apply, gaps, what no platform can honour.",
    "test": "Run cases: hosts, described or recorded, and what a policy must decide for them.",
    "diff": "Show what would change on a fleet of recorded hosts if the policy, or the knowledge, changed.",
    "matrix": "Show what a policy does on every arch under every hypervisor, also as a picture.",
    "waivers": "List waivers and how long they last.",
    "presets": "List the shipped policies that others can extend.",
    "schema": "Print the JSON Schema of policies, waivers or policy tests.",
}


@click.group(cls=LazyGroup, verbs=_VERBS, modules="orchestrator.cli.policy_{}", heading="Commands")
def command() -> None:
    """Work on policies."""
