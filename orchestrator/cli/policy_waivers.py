# SPDX-License-Identifier: Apache-2.0
"""``kdo policy waivers``."""

from __future__ import annotations

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import finding_data, format_option, policy_options, write_json
from orchestrator.errors import Exit


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@policy_options()
@format_option("table", "json")
def command(files: tuple[str, ...], chosen: PolicyChoice, output: str) -> int:
    """List waivers and how long they last. Exit code 0 if all count, 2 if some have expired, 5 if a file is not valid.

    Waivers may name rules of the policy: name it with -p if it is not the shipped default.
    """
    import json
    from dataclasses import replace

    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.policy.waivers import doubts
    from orchestrator.reports.text import line, table

    found = replace(chosen, waivers=files).waiver_set(chosen.pipeline())
    states = {w.id: w.state(found.today) for w in found.all}
    problems = list(doubts(found.all, found.today))
    if output == "json":
        entries = [
            {
                "id": w.id,
                "state": states[w.id],
                "expires": w.expires.isoformat(),
                "days": (w.expires - found.today).days,
                "check": w.check,
                "rule": w.rule,
                "control": w.control,
                "hosts": w.source,
                "approver": w.approver,
                "justification": w.justification,
                "where": w.where,
                "signer": w.file.signer,
            }
            for w in found.all
        ]
        write_json({"format_version": FORMAT_VERSION, "waivers": entries, "problems": finding_data(problems)})
    else:
        for signer in dict.fromkeys(f"{w.file.name}: {w.file.signer}" for w in found.all if w.file.signer):
            line(f"signed: {signer}", "dim")
        words = {"valid": "valid until", "soon": "expires within 30 days:", "expired": "expired on"}
        rows = [
            (
                w.id,
                f"{words[states[w.id]]} {w.expires}",
                w.about,
                json.dumps(w.source, ensure_ascii=False).replace('"', ""),
                w.approver,
                w.justification,
            )
            for w in found.all
        ]
        table(("WAIVER", "STATE", "ABOUT", "HOSTS", "APPROVER", "WHY"), rows)
        for problem in problems:
            for text in problem.lines():
                line(text, "yellow")
    return Exit.PENDING if "expired" in states.values() else Exit.OK
