# SPDX-License-Identifier: Apache-2.0
"""``kdo policy presets``."""

from __future__ import annotations

import click

from orchestrator.cli.common import format_option, write_json
from orchestrator.errors import Exit


@click.command()
@format_option("table", "json")
def command(output: str) -> int:
    """List the shipped policies. Use one with `-p NAME`, or build on it with `extends: [NAME]`."""
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.knowledge.load import knowledge
    from orchestrator.policy.compose import shipped
    from orchestrator.policy.load import load
    from orchestrator.reports.text import line

    known = knowledge()
    found = []
    for name, path in shipped().items():
        policy = load(path, known)
        top = policy.files[-1]
        text = " ".join(top.marked.data["metadata"].get("description", "").split())
        found.append({"name": name, "extends": list(top.spec.get("extends", [])), "description": text})
    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "policies": found})
        return Exit.OK
    for entry in found:
        base = f" (extends {', '.join(entry['extends'])})" if entry["extends"] else ""
        line(f"{entry['name']}{base}", "bold")
        line(f"  {entry['description']}")
    return Exit.OK
