# SPDX-License-Identifier: Apache-2.0
"""``kdo runs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import write_json
from orchestrator.cli.fleet import carry_on, exit_of, store_option
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from orchestrator.store.store import Store

_FORMAT = click.option("--format", "output", type=click.Choice(("table", "json")), default="table", show_default=True,
                       help="Form of the result on stdout.")  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Runs on record: list, show, compare; pause, resume and cancel one that is under way; forget old ones.

    RUN is the id of a run, a beginning of it that only one has, or `last`. Second looks of a rollout (kind look) are never the last.
    """


@command.command("list")
@click.option("-n", "count", type=click.IntRange(1, 10000), default=20, show_default=True, help="How many, the newest.")
@click.option("--kind", type=click.Choice(("sweep", "apply", "enforce", "pull", "look")), default=None)
@_FORMAT
@store_option
def list_(count: int, kind: str | None, output: str, store_url: str | None) -> int:
    """The newest runs."""
    from dataclasses import asdict

    from orchestrator.reports.fleet import run_list
    from orchestrator.store import runs
    from orchestrator.store.store import Store

    with Store(store_url, create=False) as store:
        found = runs.listed(store.database, count, kind or "")
        tallies = [runs.tally(store.database, r.id) for r in found]
    if output == "json":
        write_json(
            {"format_version": "1.0", "runs": [{**asdict(r), "tally": t} for r, t in zip(found, tallies, strict=True)]}
        )
    else:
        run_list(found, tallies)
    return Exit.OK


@command.command()
@click.argument("run", default="last")
@click.option("--all", "everything", is_flag=True, help="Every host, not only those that need somebody.")
@_FORMAT
@store_option
def show(run: str, everything: bool, output: str, store_url: str | None) -> int:
    """One run: its waves, and the hosts that need somebody."""
    from dataclasses import asdict

    from orchestrator.reports.fleet import run as shown
    from orchestrator.store import runs
    from orchestrator.store.store import Store

    with Store(store_url, create=False) as store:
        row = runs.get(store.database, run)
        waves, tally = runs.waves(store.database, row.id), runs.tally(store.database, row.id)
        rows = runs.hosts_of(store.database, row.id, states=() if everything else runs.BAD)
        if output == "json":
            data = {**asdict(row), "waves": [asdict(w) for w in waves], "tally": tally, "on": [asdict(h) for h in rows]}
            write_json({"format_version": "1.0", "run": data})
        else:
            notes = sorted({s.why for s in runs.shards(store.database, row.id) if s.why})[:20]
            shown(row, waves, tally, rows, notes)
    return Exit.OK


@command.command()
@click.argument("before")
@click.argument("after", default="last")
@_FORMAT
@store_option
def compare(before: str, after: str, output: str, store_url: str | None) -> int:
    """Hosts that ended differently in two runs. Exit code 2 when there are any."""
    from orchestrator.reports.fleet import compared
    from orchestrator.reports.text import line
    from orchestrator.store import runs
    from orchestrator.store.store import Store

    with Store(store_url, create=False) as store:
        first, second = runs.get(store.database, before), runs.get(store.database, after)
        rows = runs.compared(store.database, first.id, second.id)
        if output == "json":
            found = list(rows)
            hosts = [{"host": h, "before": a, "after": b} for h, a, b in found]
            write_json({"format_version": "1.0", "before": first.id, "after": second.id, "hosts": hosts})
            return Exit.PENDING if found else Exit.OK
        counts = compared(rows)
    for (then, later), number in sorted(counts.items()):
        line(f"{number:,} hosts: {then or 'not in it'} → {later or 'not in it'}", "bold")
    if not counts:
        line("every host ended as it did before", "green")
    return Exit.PENDING if counts else Exit.OK


@command.command()
@click.argument("run")
@click.option("--retry", is_flag=True, help="Also begin again with the hosts that have failed or could not be reached.")
@click.option(
    "--max-fail", "max_fail", default="", metavar="SHARE", help="Open the gate: how many hosts may have failed."
)
@click.option("--consent", metavar="HOST", default="",
              help="Of a run with --prove-canary: the host to crash, without a question.")  # fmt: skip
@_FORMAT
@store_option
def resume(run: str, retry: bool, max_fail: str, consent: str, output: str, store_url: str | None) -> int:
    """Go on with a run that was paused, held, interrupted, or whose controller is gone. No finished host is done again."""
    from dataclasses import replace
    from pathlib import Path

    import msgspec

    from orchestrator.engine.job import settings_of
    from orchestrator.fleet.inventory import resolve
    from orchestrator.fleet.runner import Whom
    from orchestrator.reports.fleet import run as shown
    from orchestrator.store import runs
    from orchestrator.store.store import Store, now, who

    with Store(store_url, create=False) as store:
        row = runs.get(store.database, run)
        settings = settings_of(row.settings)
        for name in settings.inventory:
            if name.startswith("/") and not Path(name).exists():
                raise InvalidInput("the run's inventory is gone", where=name, why="its hosts cannot be reached without it",
                                   fix="bring it back, or begin a new run")  # fmt: skip
        inventory = resolve(Whom(tuple(settings.inventory), settings.limit, settings.forks, settings.become))
        if max_fail:
            rollout = msgspec.structs.replace(settings.rollout, max_fail=max_fail)
            row = replace(row, settings=msgspec.structs.replace(settings, rollout=rollout).data())
        if retry:
            runs.reopen(store.database, row.id, runs.BAD)
            runs.move(store.database, row.id, "paused", now(), who=who(), what="hosts begun again")
        state = carry_on(store, row, inventory, consent)
        tally = runs.tally(store.database, row.id)
        row = runs.get(store.database, row.id)
        if output == "json":
            write_json({"format_version": "1.0", "run": row.id, "state": state, "hosts": tally})
        else:
            rows = runs.hosts_of(store.database, row.id, states=runs.BAD)
            shown(row, runs.waves(store.database, row.id), tally, (h for _, h in zip(range(50), rows, strict=False)))
    return exit_of(state, tally)


def _ended(store: Store, run: str) -> bool:
    """End a run that nobody goes on with: its controller may have died, and with it whoever would have ended the run."""
    from datetime import UTC, datetime

    from orchestrator.engine.job import worker_name
    from orchestrator.store import leases, runs
    from orchestrator.store.store import now, who

    owner = worker_name("cancel")
    if leases.take(store.database, [f"run:{run}"], owner, datetime.now(UTC)):
        return False
    try:
        runs.cancel_open(store.database, run)
        runs.move(store.database, run, "cancelled", now(), who=who())
    finally:
        leases.release(store.database, owner)
    return True


def _order(run: str, state: str, store_url: str | None) -> int:
    from orchestrator.reports.text import line
    from orchestrator.store import runs
    from orchestrator.store.store import Store, now, who

    with Store(store_url, create=False) as store:
        row = runs.get(store.database, run)
        if state == "cancelling" and row.state in (*runs.RESUMABLE, "cancelling") and _ended(store, row.id):
            line(f"{row.id}: cancelled")
        elif runs.move(store.database, row.id, state, now(), who=who(), only_from=("running", "pausing")):
            line(f"{row.id}: {state}; `kdo runs show {row.id}` says when it is")
        else:
            raise InvalidInput(
                f"the run is {row.state}", where=row.id, why="only one that runs can be stopped", fix="kdo runs list"
            )
    return Exit.OK


@command.command()
@click.argument("run")
@store_option
def pause(run: str, store_url: str | None) -> int:
    """Let what is under way come to its end, and begin nothing new."""
    return _order(run, "pausing", store_url)


@command.command()
@click.argument("run")
@store_option
def cancel(run: str, store_url: str | None) -> int:
    """End a run now: shards that are under way are stopped, wherever they are. A host is before or after its transaction."""
    return _order(run, "cancelling", store_url)


@command.command()
@click.option("--older-than", "days", type=click.IntRange(0), default=90, show_default=True, metavar="DAYS")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@store_option
def prune(days: int, yes: bool, store_url: str | None) -> int:
    """Forget runs that ended long ago, and documents that nothing needs any more. The audit trail stays."""
    from datetime import UTC, datetime, timedelta

    from orchestrator.reports.text import line
    from orchestrator.store.prune import prune as forget
    from orchestrator.store.store import Store, moment, now, who

    if not yes:
        click.confirm(f"Forget every run that began more than {days} days ago?", abort=True, err=True)
    with Store(store_url, create=False) as store:
        before = moment(datetime.now(UTC) - timedelta(days=days))
        found = forget(store.database, before, now(), who())
    line(", ".join(f"{n:,} {what}" for what, n in found.items()) + " forgotten")
    return Exit.OK
