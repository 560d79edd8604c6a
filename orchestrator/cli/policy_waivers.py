# SPDX-License-Identifier: Apache-2.0
"""``kdo policy waivers``."""

from __future__ import annotations

import click

from orchestrator.cli.common import PolicyChoice, format_option, policy_options, write_json
from orchestrator.errors import Exit


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@policy_options()
@format_option("table", "json")
def command(files: tuple[str, ...], chosen: PolicyChoice, output: str) -> int:
    """List waivers and how long they last. Exit code 0 if all count, 2 if some have expired, 5 if a file is not valid."""
    from dataclasses import replace

    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.policy.waivers import doubts
    from orchestrator.reports.text import line, table

    pipeline = chosen.pipeline()
    found = replace(chosen, waivers=files).waiver_set(pipeline)
    states = {w.id: w.state(found.today) for w in found.all}
    if output == "json":
        entries = [
            {
                "id": w.id,
                "state": states[w.id],
                "expires": w.expires.isoformat(),
                "check": w.check,
                "rule": w.rule,
                "approver": w.approver,
                "justification": w.justification,
                "where": w.where,
            }
            for w in found.all
        ]
        write_json({"format_version": FORMAT_VERSION, "waivers": entries})
    else:
        rows = [(w.id, states[w.id], str(w.expires), w.check or w.rule, w.approver, w.justification) for w in found.all]
        table(("WAIVER", "STATE", "UNTIL", "ABOUT", "APPROVER", "WHY"), rows)
        for problem in doubts(found.all, found.today):
            for text in problem.lines():
                line(text, "yellow")
    return Exit.PENDING if "expired" in states.values() else Exit.OK
