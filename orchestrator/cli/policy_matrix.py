# SPDX-License-Identifier: Apache-2.0
"""``kdo policy matrix``."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import format_option, write_json
from orchestrator.errors import Exit, InvalidInput


@click.command()
@click.argument("policy", default="default")
@click.option("--details", is_flag=True, help="Show every rule and every row of knowledge that meet in a cell, with an example host.")  # fmt: skip
@click.option(
    "-o",
    "--output",
    "save",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Draw it into FILE: .svg, or .png (needs Pillow, extra png).",
)
@format_option("table", "json")
def command(policy: str, details: bool, save: str | None, output: str) -> int:
    """Show what POLICY (a file or a shipped name) does on every arch under every hypervisor.

    Nothing is sampled: each cell lists every rule and row of knowledge that can decide for some host of that kind.
    """
    from orchestrator.knowledge.load import knowledge
    from orchestrator.policy.load import load
    from orchestrator.policy.matrix import matrix
    from orchestrator.reports import matrix as report
    from orchestrator.reports.picture import png, svg
    from orchestrator.reports.text import line

    known = knowledge()
    found = matrix(load(policy, known), known)
    if save is not None:
        shapes, width, height, title = report.picture(found)
        kind = Path(save).suffix.lower()
        if kind not in (".svg", ".png"):
            raise InvalidInput(f"{save!r} is neither .svg nor .png", fix="name the file accordingly")
        data = svg(shapes, width, height, title).encode() if kind == ".svg" else png(shapes, width, height)
        try:
            Path(save).write_bytes(data)
        except OSError as e:
            raise InvalidInput("cannot write the picture", where=save, why=e.strerror or str(e)) from None
        line(f"{save}: {len(data)} bytes")
        return Exit.OK
    if output == "json":
        write_json(found)
    else:
        report.matrix_table(found, details)
    return Exit.OK
