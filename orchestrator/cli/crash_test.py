# SPDX-License-Identifier: Apache-2.0
"""``kdo crash-test``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import (
    Hosts,
    exit_code,
    format_option,
    gather,
    host_options,
    policy_options,
    report_problems,
    write_json,
)
from orchestrator.cli.fleet import remember, store_option
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.documents.proof import Proof
    from orchestrator.proof.crash_test import CrashTest


@click.command()
@click.argument("host")
@host_options(facts=False)
@policy_options(waivers=True)
@click.option("--cpu", type=click.IntRange(0), metavar="N", help="The CPU that panics. Default: whichever it is.")
@click.option("--timeout", type=click.IntRange(60), default=1800, show_default=True, metavar="SECONDS",
              help="How long the host may take to dump and to come back.")  # fmt: skip
@click.option("--consent", metavar="HOST", default="", help="The host's name once more: consent without a question.")
@click.option("--check", is_flag=True, help="Go through every precondition; nothing is crashed or written.")
@click.option("--verdict", "fetch", is_flag=True, help="Fetch the verdict of a crash whose wait was cut short.")
@store_option
@format_option("table", "json")
def command(
    host: str, hosts: Hosts, chosen: PolicyChoice, cpu: int | None, timeout: int, consent: str, check: bool, fetch: bool,
    store_url: str | None, output: str,
) -> int:  # fmt: skip
    """Crash ONE real host on purpose, wait for its return, and keep the verdict. The vmcore stays on the host.

    Before anything: the host has nothing to change, validates, is inside its maintenance window, and nobody else works on it.
    """
    from orchestrator.proof.crash_test import CrashTest, late, only_one

    if not hosts.inventory:
        why = "the machine on which kdo runs cannot judge its own crash"
        raise InvalidInput("a crash test needs an inventory", why=why, fix="run it elsewhere, with -i INVENTORY")
    if fetch and check:
        why = "the host forgets its marker when it gives a verdict"
        raise InvalidInput("--check and --verdict exclude each other", why=why, fix="give one of them")
    if consent and consent != host:
        raise InvalidInput("the consent is for another host", where="--consent", why=f"{consent!r} is not {host!r}")
    if fetch:
        with only_one():
            done = late(hosts.narrowed(host).whom(), host, timeout)
            _remember(done[0], store_url)
            return _show(*done, output)
    pipeline = chosen.pipeline()
    waivers = chosen.waiver_set(pipeline)
    hosts = hosts.narrowed(host)
    found = gather(hosts, pipeline.targets())
    facts = [f for f in found.facts if f.host == host]
    if len(found.facts) + len(found.problems) != 1 or (found.facts and not facts):
        raise InvalidInput(f"{host!r} is not one host of the inventory", fix="name one host, not a group or a pattern")
    if not facts:
        report_problems(found.problems)
        return exit_code(found.problems)
    test = CrashTest(pipeline, hosts.whom(), facts[0], waivers, cpu)
    with only_one(write=not check):
        expected = test.expected()
        boot = test.check()
        if check:
            return _ready(expected, output)
        if _ask(host, consent):
            expected = test.expected()  # the maintenance window may have closed meanwhile
        return _show(*crash_and_remember(test, boot, expected, timeout, store_url), output)


@contextmanager
def _nobody_else(host: str, store_url: str | None) -> Iterator[None]:
    """The lease that whoever changes the host in a run would hold, too."""
    from orchestrator.engine.job import worker_name
    from orchestrator.store.leases import holding
    from orchestrator.store.store import Store

    owner = worker_name("crash-test")
    with Store(store_url) as store, holding(store, f"host:{host}", owner, f"somebody else works on {host}"):
        yield


def _ready(expected: Proof, output: str) -> int:
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.reports.text import line

    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "ready": True, "expected": expected})
    else:
        about = f"relies on {expected.strategy}, kernel {expected.kernel}"
        line(f"{expected.host}: ready for a crash test: {about}", "green")
    return Exit.OK


def crash_and_remember(
    test: CrashTest, boot: str, expected: Proof, timeout: int, store_url: str | None
) -> tuple[Proof, Path]:
    """Crash the host while nobody else can work on it, and put what came of it on record."""
    with _nobody_else(test.host, store_url):
        proof, path = _crash(test, boot, expected, timeout)
    _remember(proof, store_url)
    return proof, path


def _remember(proof: Proof, store_url: str | None) -> None:
    detail = {"outcome": proof.outcome, "kernel": proof.kernel, "crash": proof.crash}
    remember(store_url, "crashed on purpose", [(proof.host, detail)], proof=proof)


def _show(proof: Proof, path: Path, output: str) -> int:
    from orchestrator.documents.base import FORMAT_VERSION
    from orchestrator.reports.proofs import show
    from orchestrator.reports.text import line

    if output == "json":
        write_json({"format_version": FORMAT_VERSION, "proof": proof, "kept": str(path)})
    else:
        show(proof)
        line(f"kept: {path}", "dim")
    return {"dumped": Exit.OK, "lost": Exit.PENDING}.get(proof.outcome, Exit.FAILED)


def _ask(host: str, consent: str) -> bool:
    """Whether somebody was asked, which can take any time."""
    if consent == host:
        return False
    click.echo(
        f"{host} will be CRASHED: it stops at once, dumps, and boots again. Nothing is shut down first.", err=True
    )
    if click.prompt("Type the host's name to go on", err=True, default="", show_default=False) != host:
        raise click.Abort
    return True


def _crash(test: CrashTest, boot: str, expected: Proof, timeout: int) -> tuple[Proof, Path]:
    click.echo(f"{test.host}: crashing; waiting at most {timeout} s for its return", err=True)
    try:
        return test.crash(boot, expected, timeout)
    except KeyboardInterrupt:
        click.echo(f"{test.host} is crashing, or dumping. Later: kdo crash-test {test.host} --verdict", err=True)
        raise
