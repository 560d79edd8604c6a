# SPDX-License-Identifier: Apache-2.0
"""What ``kdo apply`` says and refuses, whether it is a dry run or not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from orchestrator.errors import InvalidInput, StalePlan

if TYPE_CHECKING:
    from orchestrator.documents.plan import HostPlan


def nothing_to_do(plans: Iterable[HostPlan]) -> None:
    """The last line where no host changes."""
    from orchestrator.reports.text import line

    settled = all(h.status == "none" for h in plans)
    line("nothing to change" if settled else "nothing was changed", "green" if settled else "yellow")


def say_stale(stale: Iterable[str]) -> None:
    """Hosts that have moved on, on stderr."""
    for host in stale:
        problem = StalePlan(
            "the plan is stale",
            where=host,
            why="the host has changed since the plan was made",
            fix="kdo plan again",
        ).problems[0]
        for text in problem.lines():
            click.echo(text, err=True)


def within_cap(hosts: int, cap: int | None, max_hosts: int | None, where: str) -> None:
    """Raise :class:`InvalidInput` when more hosts would be changed than the policy, or the command line, allows."""
    allowed = max_hosts or cap
    if allowed is not None and hosts > allowed:
        raise InvalidInput(
            f"the plan changes {hosts} hosts, allowed are {allowed}",
            where=where,
            why=f"rollout.max_hosts of the policy is {cap}" if max_hosts is None else f"--max-hosts is {max_hosts}",
            fix=f"narrow it with --limit, or confirm with --max-hosts {hosts}",
        )
