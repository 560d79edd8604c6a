# SPDX-License-Identifier: Apache-2.0
"""``kdo report``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import policy_options
from orchestrator.cli.fleet import store_option
from orchestrator.errors import Exit, InvalidInput, did_you_mean

if TYPE_CHECKING:
    from orchestrator.documents.findings import ReportHost
    from orchestrator.planning.pipeline import Pipeline
    from orchestrator.store.store import Store

_FORMS = ("table", "json", "csv", "markdown", "junit", "sarif", "prometheus", "html")


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--format", "form", type=click.Choice(_FORMS), default="table", show_default=True, help="Form of the report."
)
@click.option(
    "-o",
    "--output",
    "save",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write it to FILE, whole or not at all.",
)
@click.option("--host", "names", multiple=True, metavar="HOST", help="Only these hosts; may hold wildcards.")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only hosts in this state.")
@click.option("--tag", default="", metavar="TAG", help="Only hosts with this tag (kdo_tags of the inventory).")
@click.option(
    "--control",
    "controls",
    multiple=True,
    metavar="ID",
    help="Hold the hosts against a control of baselines instead (docs/compliance.md); `all`: every one.",
)
@click.option(
    "--facts",
    "facts_files",
    multiple=True,
    metavar="PATH",
    help="With --control: recorded facts instead of the store (JSON, JSON lines, - for stdin).",
)
@click.option("--mode", default="0644", show_default=True, metavar="OCTAL", help="Permissions of FILE.")
@policy_options(waivers=True)
@store_option
def command(
    files: tuple[str, ...], form: str, save: str | None, names: tuple[str, ...], states: tuple[str, ...], tag: str,
    controls: tuple[str, ...], facts_files: tuple[str, ...], mode: str, chosen: PolicyChoice, store_url: str | None,
) -> int:  # fmt: skip
    """Say what is on record of the fleet, in a form that people or other programs read. No host is asked.

    Without FILE it is made from the store. FILE: what `kdo plan -o`, `kdo validate --format json` or `kdo report --format json`
    have written; - is standard input. With the policy that decided the hosts (-p), the page has the trace of its rules. Exit code 2 where a host needs somebody, except for prometheus and csv.

    With --control the hosts on record are judged anew, by the policy (-p), the waivers and the control: which pass, which fail and
    why. Exit code 2 where one fails, except for csv.
    """
    from orchestrator.store.hosts import STATES

    if form == "html" and save is None and sys.stdout.isatty():
        raise InvalidInput("a page is for a browser", where="--format html", fix="add -o FILE")
    for state in states:
        if state not in STATES:
            raise InvalidInput(f"there is no state {state!r}", where="--state", why=f"states are: {', '.join(STATES)}",
                               fix=did_you_mean(state, STATES) or "give one of them")  # fmt: skip
    if not _octal(mode):
        raise InvalidInput(f"{mode!r} are no permissions", where="--mode", why="it is not octal", fix="give e.g. 0644")
    if form == "table" and save is not None:
        raise InvalidInput(
            "a table is for a terminal", where="-o", fix="give --format markdown, or another one for files"
        )
    if controls:
        return _controls(controls, form, save, int(mode, 8), files, states, chosen, facts_files, names, tag, store_url)
    if facts_files or chosen.waivers:
        raise InvalidInput("--facts and --waivers are for --control", why="otherwise a report only says what is on record",
                           fix="kdo validate --facts FILE --waivers FILE --format json | kdo report -")  # fmt: skip
    with ExitStack() as stack:
        pipeline = chosen.pipeline() if form == "html" else None
        found, source, store = _hosts(stack, files, names, states, tag, store_url, pipeline)
        if form == "table":
            return _shown(found, source)
        data, bad = _made(form, found, source, store)
    if save is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        _write(Path(save), data, int(mode, 8))
    return Exit.PENDING if bad and form not in ("prometheus", "csv") else Exit.OK


def _controls(
    ids: tuple[str, ...], form: str, save: str | None, mode: int, files: tuple[str, ...], states: tuple[str, ...],
    chosen: PolicyChoice, facts_files: tuple[str, ...], names: tuple[str, ...], tag: str, store_url: str | None,
) -> int:  # fmt: skip
    from orchestrator.cli.report_controls import controls_of
    from orchestrator.reports import controls as shown

    if form != "table" and form not in shown.FORMS:
        raise InvalidInput(
            f"controls have no form {form}", where="--format", fix=f"give table, {', '.join(shown.FORMS)}"
        )
    if files or states:
        raise InvalidInput("--control judges hosts by their facts", why="a saved document or a state says too little",
                           fix="leave FILE and --state out; --facts gives recorded facts")  # fmt: skip
    made = controls_of(ids, chosen, facts_files, names, tag, store_url)
    if form == "table":
        shown.show(made)
    elif save is None:
        sys.stdout.buffer.write(shown.FORMS[form](made))
        sys.stdout.flush()
    else:
        _write(Path(save), shown.FORMS[form](made), mode)
    return Exit.PENDING if shown.bad(made) and form != "csv" else Exit.OK


def _octal(text: str) -> bool:
    return (
        text.isascii()
        and text.isdigit()
        and set(text) <= set("01234567")
        and len(text) in (3, 4)
        and text[-4:-3] in ("", "0")
    )


def _hosts(
    stack: ExitStack, files: tuple[str, ...], names: tuple[str, ...], states: tuple[str, ...], tag: str, url: str | None,
    pipeline: Pipeline | None,
) -> tuple[Iterator[ReportHost], str, Store | None]:  # fmt: skip
    """The hosts that are asked for, one at a time, and where they come from. A store stays open as long as the stack.

    ``pipeline``: say also what stands behind their states.
    """
    from fnmatch import fnmatchcase

    from msgspec.structs import replace

    from orchestrator.reports.collected import saved, stored
    from orchestrator.store.store import Store

    whole = pipeline is not None
    if not files:
        store = stack.enter_context(Store(url, create=False))
        return stored(store, states=states, names=names, tag=tag, whole=whole, pipeline=pipeline), store.name, store
    every = {h.host: h for file in files for h in saved(_read(file), file)}  # of a host that is in two, the last counts
    found = (
        h if whole else replace(h, detail=None)
        for _, h in sorted(every.items())
        if (not states or h.state in states)
        and (not tag or tag in h.tags)
        and (not names or any(fnmatchcase(h.host, n) for n in names))
    )
    return found, ", ".join(files), None


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as e:
        raise InvalidInput(f"{file} cannot be read", where=file, why=e.strerror or str(e),
                           fix="give what another verb has saved, or nothing for the store") from None  # fmt: skip


def _made(form: str, found: Iterator[ReportHost], source: str, store: Store | None) -> tuple[bytes, bool]:
    """The bytes of a report, and whether a host needs somebody."""
    from datetime import UTC, datetime

    from orchestrator.reports import rows
    from orchestrator.reports.collected import needs_somebody, report

    if form == "csv":
        return "".join(rows.csv_lines(found)).encode(), False
    if form == "prometheus":
        from orchestrator.reports.prometheus import Metrics

        return Metrics().add(found).text(datetime.now(UTC)), False
    made = report(found, source)
    bad = any(needs_somebody(h) for h in made.hosts)
    if form == "json":
        from orchestrator.documents.base import pretty

        return pretty(made), bad
    if form == "html":
        from orchestrator.reports.page import around, page

        return page(made, datetime.now(UTC), around(store.database) if store is not None else None), bad
    if form == "sarif":
        from orchestrator.reports.sarif import sarif

        return sarif(made), bad
    return (rows.junit if form == "junit" else rows.markdown)(made), bad


def _shown(found: Iterator[ReportHost], source: str) -> int:
    from orchestrator.reports.collected import needs_somebody, report
    from orchestrator.reports.fleet import found_out

    made = report(found, source)
    found_out(made)
    return Exit.PENDING if any(needs_somebody(h) for h in made.hosts) else Exit.OK


def _write(path: Path, data: bytes, mode: int) -> None:
    from orchestrator.files import write_atomically

    try:
        write_atomically(path, data, mode)
    except OSError as e:
        raise InvalidInput(f"{path} cannot be written", where=str(path), why=e.strerror or str(e),
                           fix="give a file in a folder that is there and that you may write to") from None  # fmt: skip
