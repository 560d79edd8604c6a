# SPDX-License-Identifier: Apache-2.0
"""``kdo policy schema``."""

from __future__ import annotations

import click


@click.command()
@click.argument("kind", type=click.Choice(["policy", "waivers", "policy-test"]), default="policy")
def command(kind: str) -> int:
    """Print the JSON Schema of KIND, for editors and other tools.

    An editor with a YAML language server uses it when the file begins with
    `# yaml-language-server: $schema=PATH`.
    """
    from orchestrator.errors import Exit
    from orchestrator.resources import read_text

    click.echo(read_text(f"schemas/{kind}.schema.json"), nl=False)
    return Exit.OK
