# SPDX-License-Identifier: Apache-2.0
"""``kdo pull``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import format_option, write_json
from orchestrator.cli.self_options import me_options, report_options
from orchestrator.errors import InvalidInput, KdoError

if TYPE_CHECKING:
    from orchestrator.agent.look import Me
    from orchestrator.agent.pull import Pulled
    from orchestrator.agent.reports import Destination


@click.command()
@click.option("--from", "source", required=True, metavar="FILE|URL", help="The bundle; FILE.sig lies beside it.")
@click.option(
    "--allowed-signers", required=True, metavar="FILE", help="Whose signature counts (docs/signed-policies.md)."
)
@click.option("--apply", "act", is_flag=True, help="Do what the policy wants here, as one transaction.")
@click.option("--reboot", is_flag=True, help="With --apply: reboot where that is needed and the policy allows it now.")
@click.option(
    "--splay",
    type=click.FloatRange(0, 86400),
    default=0,
    metavar="SECONDS",
    help="Wait up to so long first: always the same on one machine, spread over all of them.",
)
@me_options()
@report_options(spool=True)
@format_option("table", "json")
def command(
    source: str,
    allowed_signers: str,
    act: bool,
    reboot: bool,
    splay: float,
    who: Me,
    destination: Destination | None,
    ca: str,
    state: Path,
    output: str,
) -> int:
    """On the host itself: fetch the signed policy, judge this machine by it, and report; with --apply, also act.

    Without --apply nothing is written but the serial of the bundle. An expired bundle, an unsigned one, and one that is
    older than what this machine has seen are refused.
    """
    from orchestrator.agent.fetch import check, is_url
    from orchestrator.agent.pull import Way, pull, reboot_now, wait
    from orchestrator.knowledge.load import knowledge

    if reboot and not act:
        raise InvalidInput("--reboot belongs to --apply", fix="add --apply")
    if is_url(source):
        check(source)
    wait(splay, who)
    result = pull(Way(source, allowed_signers, who, state, act, reboot, ca), knowledge())
    if output == "json":
        write_json(result.report)
    else:
        _show(result)
    _tell(KdoError(result.problems))
    if destination is not None:
        try:
            destination.send(result.report)
        except KdoError as e:  # the host's own state is what the exit code is about
            _tell(e)
    if result.reboot:
        reboot_now()
    return int(result.code)


def _tell(error: KdoError) -> None:
    from orchestrator.reports.text import clean

    for problem in error.problems:
        for text in problem.lines():
            print(clean(text), file=sys.stderr)


def _show(result: Pulled) -> None:
    from orchestrator.reports.plans import outcomes, verdicts
    from orchestrator.reports.text import line

    report = result.report
    if report.bundle.serial:
        end = f", until {result.bundle.expires}" if result.bundle is not None and result.bundle.expires else ""
        line(f"bundle {report.bundle.serial}: policy {report.bundle.policy}, signed by {report.bundle.signer}{end}")
    if report.plan is not None:
        changes = f", {report.plan.changes} changes, at least a {report.plan.action}" if report.plan.changes else ""
        line(f"{report.host}: plan {report.plan.status}{changes}")
    if report.outcome is not None:
        outcomes([report.outcome])
    if report.verdict is not None:
        verdicts([report.verdict])
    if report.pending_reboot:
        line(f"{report.host}: a reboot is needed before this is in force ({report.pending_reboot})", "yellow")
