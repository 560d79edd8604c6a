# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs share, and how they become hosts, facts and a pipeline."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.errors import Exit, InvalidInput, Problem

if TYPE_CHECKING:
    from orchestrator.fleet.collect import Collected, HostProblem
    from orchestrator.fleet.fast import Lane
    from orchestrator.fleet.runner import Progress, Whom
    from orchestrator.policy.waivers import Waivers

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Hosts:
    """Whom a verb is about: this machine, an inventory, or recorded facts."""

    inventory: tuple[str, ...]
    limit: str
    facts: tuple[str, ...]
    forks: int
    become: bool
    lane: Lane = "ansible"

    def narrowed(self, host: str | None) -> Hosts:
        """The same hosts, only the one that a verb's argument names. Without an inventory only this machine has a name."""
        if not host or self.facts:
            return self
        if not self.inventory:
            if host != "localhost":
                why = "there is no host of that name: without an inventory a verb is about this machine"
                raise InvalidInput(f"there is no host {host!r}", why=why, fix=f"add -i INVENTORY, or -i {host},")
            return self
        return replace(self, limit=f"{self.limit}:&{host}" if self.limit else host)

    def whom(self) -> Whom:
        """For the Ansible side."""
        from orchestrator.fleet.runner import Whom

        if self.facts:
            raise InvalidInput(
                "recorded facts cannot be changed",
                why="this verb touches hosts",
                fix="use -i INVENTORY, or nothing for this machine",
            )
        if self.limit and not self.inventory:
            raise InvalidInput("--limit needs an inventory", fix="add -i INVENTORY")
        return Whom(self.inventory, self.limit, self.forks, self.become)


def host_options(*, facts: bool = True, lanes: bool = False) -> Decorator:
    """-i, --limit, --forks, --become and (where nothing is changed) --facts and --lane; the verb gets one ``hosts`` argument."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(
            *args: Any,
            inventory: tuple[str, ...],
            limit: str,
            forks: int,
            become: bool,
            facts_files: tuple[str, ...] = (),
            lane: Lane = "ansible",
            **kwargs: Any,
        ) -> Any:
            if facts_files and inventory:
                raise InvalidInput(
                    "--facts and -i exclude each other",
                    why="recorded facts are taken as they are, no host is asked",
                    fix="give one of them",
                )
            return function(*args, hosts=Hosts(inventory, limit, facts_files, forks, become, lane), **kwargs)

        options = [
            click.option(
                "-i",
                "--inventory",
                multiple=True,
                metavar="INVENTORY",
                help="Ansible inventory: file, directory, script, or `host,`. Default: this machine.",
            ),
            click.option(
                "-l",
                "--limit",
                default="",
                metavar="PATTERN",
                help="Only these hosts of the inventory (Ansible pattern).",
            ),
            click.option(
                "--forks",
                default=20,
                show_default=True,
                type=click.IntRange(1, 500),
                help="Hosts asked at the same time.",
            ),
            click.option("-b", "--become", is_flag=True, help="Get root's rights on the hosts (as in Ansible)."),
        ]
        if facts:
            options.append(
                click.option(
                    "--facts",
                    "facts_files",
                    multiple=True,
                    metavar="PATH",
                    help="Recorded facts (JSON, JSON lines, - for stdin): no host is asked.",
                )
            )
        if lanes:
            options.append(
                click.option(
                    "--lane",
                    type=click.Choice(("auto", "fast", "ansible")),
                    default="ansible",
                    show_default=True,
                    help="How hosts are asked: through Ansible, over plain SSH (fast), or over SSH where that will do (auto).",
                )
            )
        for option in reversed(options):
            run = option(run)
        return run

    return decorate


def format_option(*choices: str) -> Decorator:
    """--format; stdout carries the result in this form and nothing else."""
    return click.option(
        "--format",
        "output",
        type=click.Choice(choices or ("table", "json", "jsonl")),
        default="table",
        show_default=True,
        help="Form of the result on stdout.",
    )


def policy_options(*, waivers: bool = False) -> Decorator:
    """-p, --require-signed and (where findings are counted) --waivers; the verb gets one ``chosen`` argument."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def run(
            *args: Any,
            policy_file: str | None,
            allowed_signers: str | None,
            waiver_files: tuple[str, ...] = (),
            **kwargs: Any,
        ) -> Any:
            return function(*args, chosen=PolicyChoice(policy_file, waiver_files, allowed_signers), **kwargs)

        options = [
            click.option(
                "-p",
                "--policy",
                "policy_file",
                metavar="FILE",
                default=None,
                help="Policy: a file, or the name of a shipped one (kdo policy presets). Default: the shipped default.",
            ),
            click.option(
                "--require-signed",
                "allowed_signers",
                metavar="ALLOWED_SIGNERS",
                default=None,
                help="Policies and waivers count only with a signature (ssh-keygen -Y) of somebody in this file.",
            ),
        ]
        if waivers:
            options.append(
                click.option(
                    "--waivers",
                    "waiver_files",
                    multiple=True,
                    metavar="FILE",
                    help="Exceptions that somebody has approved (docs/waivers.md).",
                )
            )
        for option in reversed(options):
            run = option(run)
        return run

    return decorate


def report_waivers(waivers: Waivers, *, checks: bool, controls: bool = False) -> None:
    """What is doubtful about the waivers, and which were about nothing in this run, on stderr.

    A plan runs no checks, a validation does not meet what only planning refuses, and only reports ask about controls:
    nothing is said of waivers for what was not asked.
    """
    from orchestrator.policy.waivers import PLANNING, doubts
    from orchestrator.reports.text import clean

    if not waivers.all:
        return
    for problem in doubts(waivers.all, waivers.today):
        for text in problem.lines():
            print(clean(text), file=sys.stderr)
    for waiver in waivers.unused():
        looked_for = waiver.rule not in PLANNING if checks else bool(waiver.rule)
        looked_for = bool(waiver.control) if controls else looked_for and not waiver.control
        if looked_for:
            what = f"note: the waiver {waiver.id!r} was about nothing in this run"
            print(clean(f"{waiver.where}: {what}"), file=sys.stderr)


class Ticker:
    """Progress on stderr: a counter that renews itself on a terminal, and on anything else only the failing hosts."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.done = 0
        self.bad = 0
        self.live = sys.stderr.isatty()

    def __call__(self, host: str, status: str) -> None:
        from orchestrator.reports.text import clean

        self.done += 1
        if status != "ok":
            self.bad += 1
            print(f"{chr(13) if self.live else ''}{clean(host)}: {status}", file=sys.stderr)
        if self.live:
            print(f"\r{self.what}: {self.done} hosts, {self.bad} with problems", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the live line."""
        if self.live and self.done:
            print(file=sys.stderr)


def gather(hosts: Hosts, targets: Sequence[str]) -> Collected:
    """Facts of the hosts in question."""
    from orchestrator.fleet.collect import from_files, from_hosts

    if hosts.facts:
        return from_files(hosts.facts)
    whom = hosts.whom()
    left: dict[str, str] = {}
    ticker = Ticker("detecting")
    progress: Progress = ticker
    try:
        if hosts.lane == "ansible" or whom.local:
            return from_hosts(whom, targets, progress=progress)
        from orchestrator.fleet.fast import from_fleet
        from orchestrator.fleet.inventory import resolve

        return from_fleet(whom, resolve(whom), targets, lane=hosts.lane, progress=progress, on_left=left.update)
    finally:
        ticker.close()
        report_left(left)


def report_left(left: dict[str, str]) -> None:
    """Which hosts the fast lane left to Ansible, by reason, on stderr."""
    if left:
        from orchestrator.fleet.fast import notes
        from orchestrator.reports.text import clean

        for note in notes(left):
            for line in note.lines():
                print(clean(line), file=sys.stderr)


def report_problems(problems: Sequence[HostProblem]) -> None:
    """Hosts that could not be asked, on stderr: what, where, why, what to do."""
    from orchestrator.reports.text import clean

    for p in problems:
        for line in Problem(p.what, p.host, p.why, p.fix).lines():
            print(clean(line), file=sys.stderr)


def exit_code(
    problems: Sequence[HostProblem], *, pending: bool = False, failed: bool = False, stale: bool = False
) -> int:
    """The worst wins: stale (6), failed (3), unreachable (4), pending (2), fine (0)."""
    if stale:
        return Exit.STALE
    if failed or any(p.status == "failed" for p in problems):
        return Exit.FAILED
    if any(p.status == "unreachable" for p in problems):
        return Exit.UNREACHABLE
    return Exit.PENDING if pending else Exit.OK


def finding_data(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Findings about files for JSON output."""
    from dataclasses import asdict

    return [asdict(p) for p in problems]


def problem_data(problems: Sequence[HostProblem]) -> list[dict[str, str]]:
    """The same for JSON output."""
    return [{"host": p.host, "status": p.status, "what": p.what, "why": p.why, "fix": p.fix} for p in problems]


def write_json(data: Any) -> None:
    """One indented JSON document on stdout."""
    from orchestrator.documents.base import pretty

    sys.stdout.buffer.write(pretty(data))
    sys.stdout.flush()


def write_line(data: Any) -> None:
    """One JSON line on stdout."""
    from orchestrator.documents.base import encode

    sys.stdout.buffer.write(encode(data) + b"\n")
    sys.stdout.flush()
