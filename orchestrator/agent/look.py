# SPDX-License-Identifier: Apache-2.0
"""One look of a host at itself: facts, plan, verdict, and the report that says so."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator import __version__
from orchestrator.checks.waive import plan_judged, verdict_judged
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.report import HostReport, ReportPlan, ReportPolicy, ReportProblem
from orchestrator.documents.verdict import Verdict
from orchestrator.documents.watch import WatchState
from orchestrator.errors import Exit, InvalidInput, Problem
from orchestrator.fleet.collect import HostProblem, from_here
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.waivers import Waiver, Waivers

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\Z")


@dataclass(frozen=True)
class Me:
    """This machine under the name that policies and waivers know it by. ``root`` is another one only in tests."""

    host: str
    groups: tuple[str, ...] = ()
    root: str = "/"


@dataclass(frozen=True)
class Orders:
    """What the host is judged by."""

    pipeline: Pipeline
    waivers: Sequence[Waiver] = ()
    policy: ReportPolicy = field(default_factory=ReportPolicy)
    problems: Sequence[Problem] = ()  # what is doubtful about it, e.g. that its time is over


@dataclass(frozen=True)
class Seen:
    """Facts and what was concluded from them."""

    facts: Facts
    plan: HostPlan
    verdict: Verdict

    @property
    def state(self) -> WatchState:
        """The part that a change is told by."""
        return WatchState(
            status=self.verdict.status,
            strategy=self.verdict.strategy,
            plan=self.plan.status,
            changes=len(self.plan.changes),
            action=self.plan.action,
            checks={c.id: c.verdict for c in self.verdict.checks},
        )

    @property
    def code(self) -> Exit:
        """The exit code of a look: as decided, or not."""
        return Exit.OK if self.state.fine else Exit.PENDING


def me(host: str | None, groups: Sequence[str] = ()) -> Me:
    """This machine. Without a name its own host name counts. Raises :class:`InvalidInput`."""
    name = host or socket.gethostname()
    for text in (name, *groups):
        # It becomes part of an inventory, where brackets and colons mean something.
        if not _NAME.match(text):
            why = "letters, digits, dot, hyphen and underscore, at most 253 of them"
            fix = "say it with --host NAME" if text == name and not host else "mend it"
            raise InvalidInput(f"{text[:80]!r} cannot be the name of a host or group", why=why, fix=fix)
    return Me(name, tuple(groups))


def look(who: Me, orders: Orders, now: datetime) -> Seen | HostProblem:
    """Ask this machine, and judge it as `kdo plan` and `kdo validate` would. Writes nothing."""
    facts = from_here(orders.pipeline.targets(), who.host, who.groups, who.root)
    if isinstance(facts, HostProblem):
        return facts
    waivers = Waivers(orders.waivers, now.date())
    judged = orders.pipeline.judge(facts)
    plan = plan_judged(orders.pipeline, judged, waivers)
    return Seen(facts, plan, verdict_judged(orders.pipeline, judged, waivers))


def stamp(now: datetime) -> str:
    """UTC to the second, as in every document."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def told(problem: Problem | HostProblem) -> ReportProblem:
    """A problem as documents carry it."""
    where = problem.host if isinstance(problem, HostProblem) else problem.where
    return ReportProblem(what=problem.what, where=where, why=problem.why, fix=problem.fix)


def report(
    who: Me, how: str, now: datetime, policy: ReportPolicy, seen: Seen | None, problems: Sequence[ReportProblem] = ()
) -> HostReport:
    """The report of one look, or of why there was none."""
    plan = None
    if seen is not None:
        plan = ReportPlan(
            status=seen.plan.status,
            changes=len(seen.plan.changes),
            action=seen.plan.action,
            reboot=seen.plan.reboot,
            rule=seen.plan.rule,
            strategy=seen.plan.strategy,
        )
    return HostReport(
        host=who.host,
        at=stamp(now),
        how=how,
        tool=__version__,
        bundle=policy,
        plan=plan,
        verdict=seen.verdict if seen is not None else None,
        problems=list(problems),
        facts=seen.facts if seen is not None else None,
    )
