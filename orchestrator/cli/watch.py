# SPDX-License-Identifier: Apache-2.0
"""``kdo watch``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli.common import policy_options
from orchestrator.cli.self_options import me_options, report_options
from orchestrator.errors import Exit, InvalidInput

if TYPE_CHECKING:
    from orchestrator.agent.look import Me, Orders
    from orchestrator.agent.monitor import Monitor
    from orchestrator.agent.reports import Destination
    from orchestrator.documents.watch import WatchLine


@click.command()
@policy_options(waivers=True)
@click.option(
    "--once", is_flag=True, help="Look once, say how it stands, and end with the exit codes of `kdo validate`."
)
@click.option(
    "--pulled",
    metavar="ALLOWED_SIGNERS",
    help="Judge by the bundle that `kdo pull` took last, its signature checked against this file.",
)
@click.option("--interval", type=click.FloatRange(1), default=60, show_default=True, help="Seconds between two polls.")
@click.option(
    "--debounce",
    type=(click.FloatRange(0), click.FloatRange(0)),
    default=(5, 60),
    show_default=True,
    metavar="QUIET MOST",
    help="Look after so many seconds without another event, and at most so many after the first.",
)
@click.option(
    "--heartbeat",
    type=click.FloatRange(1),
    default=3600,
    show_default=True,
    help="Seconds between two looks that are told even when nothing has turned.",
)
@me_options()
@report_options(spool=False)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line of text, or one line of JSON (schemas/watch-line.schema.json), for each change.",
)
def command(
    chosen: PolicyChoice,
    once: bool,
    pulled: str | None,
    interval: float,
    debounce: tuple[float, float],
    heartbeat: float,
    who: Me,
    destination: Destination | None,
    ca: str,
    state: Path,
    output: str,
) -> int:
    """On the host itself: notice what changes the decision or disarms kdump, and say what has turned. Read-only.

    Events of devices, processors, memory and modules come by netlink; kernels, images, configuration, mounts and the
    loaded capture kernel are looked at every --interval seconds.
    """
    from orchestrator.agent.events import subsystems
    from orchestrator.agent.interest import interest
    from orchestrator.agent.poll import Poller
    from orchestrator.agent.watch import Rhythm, Watch

    wanted = interest()
    watch = Watch(
        who=who,
        orders=_orders(chosen, pulled, state),
        rows=wanted.events,
        poller=Poller(wanted.polls, wanted.targets, who.root),
        say=_speaker(output),
        send=destination.send if destination is not None else None,
        rhythm=Rhythm(interval, debounce[0], max(debounce), heartbeat),
    )
    if once:
        seen = watch.once(kind="start")
        return int(seen.code if seen is not None else Exit.FAILED)
    watch.monitor = _monitor(subsystems(wanted.events))
    watch.run()
    return 0


def _orders(chosen: PolicyChoice, pulled: str | None, state: Path) -> Callable[[], Orders]:
    """What to judge by, asked before each look. What is wrong with a policy that was named ends the verb here."""
    from datetime import UTC, datetime

    from orchestrator.agent.look import Orders
    from orchestrator.documents.report import ReportPolicy

    if pulled is None:
        pipeline = chosen.pipeline()
        policy = pipeline.policy
        told = ReportPolicy(policy=policy.name, policy_hash=policy.hash, signer="; ".join(policy.signers))
        fixed = Orders(pipeline, chosen.waiver_set(pipeline).all, told)
        return lambda: fixed
    if chosen != PolicyChoice():
        raise InvalidInput("--pulled excludes -p, --waivers and --require-signed", why="the bundle holds them all")
    from orchestrator.agent.pull import remembered
    from orchestrator.agent.record import record_path
    from orchestrator.knowledge.load import knowledge

    known = knowledge()
    last: dict[tuple[int, int, int], Orders] = {}  # by the record's file and by the day: bundles expire

    def current() -> Orders:
        now = datetime.now(UTC)
        try:
            s = record_path(state).stat()
            key = (s.st_ino, s.st_mtime_ns, now.toordinal())
        except OSError:
            key = (0, 0, now.toordinal())
        if key not in last:
            fresh = remembered(state, pulled, known, now)
            last.clear()
            last[key] = fresh
        return last[key]

    current()
    return current


def _speaker(output: str) -> Callable[[WatchLine], None]:
    from orchestrator.agent.turns import text
    from orchestrator.documents.base import encode
    from orchestrator.reports.text import one_line

    def say(line: WatchLine) -> None:
        data = encode(line) if output == "json" else one_line(text(line), 2000).encode("utf-8", "replace")
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.flush()

    return say


def _monitor(wanted: list[str]) -> Monitor | None:
    """The netlink socket, or a warning: polling alone still sees most of what matters, later."""
    from orchestrator.agent.monitor import Monitor

    try:
        return Monitor(wanted)
    except (OSError, ImportError) as e:
        print(f"warning: no events of devices can be had ({e}); only polling is left", file=sys.stderr)
        return None
