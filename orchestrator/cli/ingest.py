# SPDX-License-Identifier: Apache-2.0
"""``kdo ingest``."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import format_option, policy_options, write_json
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="DIR|FILE...")
@policy_options(waivers=True)
@click.option("--remove", is_flag=True, help="Remove reports once they are on record.")
@store_option
@format_option("table", "json")
def command(places: tuple[str, ...], chosen: PolicyChoice, remove: bool, store_url: str | None, output: str) -> int:
    """Put reports that hosts have sent (kdo pull, kdo watch) on record; `kdo status` then knows these hosts too.

    The facts in them are judged here, with this policy. What a host claims about itself is not taken over.
    """
    from dataclasses import asdict

    from orchestrator.engine.begin import begin_ingest
    from orchestrator.engine.ingest import ingest
    from orchestrator.reports.text import line
    from orchestrator.store import runs
    from orchestrator.store.store import Store, now, who

    files: list[Path] = []
    for place in places:
        path = Path(place)
        if not path.exists():
            raise InvalidInput(
                "there is no such file or directory", where=place, fix="give the directory that reports go to"
            )
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    with Store(store_url) as store:
        run = begin_ingest(store, pipeline.policy)
        found = ingest(store, run, files, pipeline, waivers)
        runs.set_wave(store.database, run.id, 0, "done", now())
        runs.move(store.database, run.id, "done", now(), who=who())
    if remove:
        for file in found.read:
            file.unlink(missing_ok=True)
    for problem in found.refused:
        for text in problem.lines():
            click.echo(text, err=True)
    if output == "json":
        write_json({"format_version": "1.0", "run": run.id, "hosts": found.hosts, "old": found.old, "states": found.states,
                    "refused": [asdict(p) for p in found.refused]})  # fmt: skip
    else:
        states = ", ".join(f"{n} {s}" for s, n in sorted(found.states.items())) or "none"
        line(
            f"{found.hosts} reports on record: {states}; {found.old} older than what is known, {len(found.refused)} refused",
            "bold",
        )
    if found.refused:
        return Exit.FAILED
    return Exit.PENDING if set(found.states) - {"compliant", "changed", "waived"} else Exit.OK
