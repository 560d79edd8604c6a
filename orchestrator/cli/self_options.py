# SPDX-License-Identifier: Apache-2.0
"""Options of the verbs that run on the host itself: under which name, and where its reports go."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import Decorator

if TYPE_CHECKING:
    from orchestrator.agent.reports import Destination

STATE_DIR = "/var/lib/kdump-orchestrator"


def me_options() -> Decorator:
    """--host and --group; the verb gets one ``who`` argument."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--host",
            "host_name",
            metavar="NAME",
            help="This machine's name in policies, waivers and reports. Default: its own.",
        )
        @click.option(
            "--group", "groups", multiple=True, metavar="GROUP", help="A group that policies and waivers know it in."
        )
        @wraps(function)
        def run(*args: Any, host_name: str | None, groups: tuple[str, ...], **kwargs: Any) -> Any:
            from orchestrator.agent.look import me

            return function(*args, who=me(host_name, groups), **kwargs)

        return run

    return decorate


def report_options(*, spool: bool) -> Decorator:
    """--report and what belongs to it; the verb gets one ``destination`` argument, ``None`` where nothing is sent."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @click.option(
            "--report",
            "place",
            metavar="DIR|URL",
            help="Also send a report: a file in DIR, or an HTTPS PUT below URL, named by the hash of the host's name.",
        )
        @click.option(
            "--report-token", metavar="FILE", default="", help="File with a bearer token for the reports' server."
        )
        @click.option("--ca", metavar="FILE", default="", help="Certificates (PEM) that count instead of the system's.")
        @click.option(
            "--state-dir",
            "state",
            metavar="DIR",
            default=STATE_DIR,
            show_default=True,
            type=click.Path(file_okay=False, path_type=Path),
            help="Where the serial and the last bundle are remembered.",
        )
        @wraps(function)
        def run(*args: Any, place: str | None, report_token: str, ca: str, state: Path, **kwargs: Any) -> Any:
            destination: Destination | None = None
            if place is not None:
                from orchestrator.agent.reports import Destination

                kept = state / "spool" if spool else None
                destination = Destination(place, report_token, ca, kept).checked()
            return function(*args, destination=destination, ca=ca, state=state, **kwargs)

        return run

    return decorate
