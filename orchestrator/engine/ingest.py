# SPDX-License-Identifier: Apache-2.0
"""Reports that hosts have sent (``kdo pull``, ``kdo watch``), judged again here and put on record.

What a host says of its own state is not taken over: its facts are judged with the policy that is given here, as if the host
had been asked. A report older than what is on record changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.agent.reports import read_report
from orchestrator.documents.report import HostReport
from orchestrator.engine.look import looked
from orchestrator.errors import Problem
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.waivers import Waivers
from orchestrator.store.hosts import Seen, keep_seen
from orchestrator.store.runs import Placed, RunRow, place
from orchestrator.store.store import Store, now

_BATCH = 100  # reports of one transaction


@dataclass
class Ingested:
    """What came of the files: ``old``: the store knows something newer; ``refused``: they are no reports."""

    hosts: int = 0
    old: int = 0
    states: dict[str, int] = field(default_factory=dict)
    refused: list[Problem] = field(default_factory=list)
    read: list[Path] = field(default_factory=list)


def seen_in(report: HostReport, pipeline: Pipeline, waivers: Waivers) -> Seen:
    """The state of the host that the report is about."""
    if report.facts is None:
        why = "; ".join(f"{p.what}: {p.why}" if p.why else p.what for p in report.problems)[:500]
        return Seen(report.host, "failed", why or "its report holds no facts", answered=False)
    seen = looked(pipeline, waivers, report.facts)
    if report.outcome is not None and report.outcome.state == "committed" and seen.state == "compliant":
        return replace(seen, state="changed")
    return seen


def ingest(store: Store, run: RunRow, files: Iterable[Path], pipeline: Pipeline, waivers: Waivers) -> Ingested:
    """Read reports into the store, few at a time."""
    out = Ingested()
    batch: list[tuple[str, Seen]] = []
    # A report's time has no milliseconds; the store's has: both sort as text.
    known: dict[str, str] = dict(store.database.read("SELECT host, seen FROM host"))

    def write() -> None:
        if not batch:
            return
        place(store.database, run.id, [Placed(s.host, 0, 0) for _, s in batch])
        for at, seen in batch:
            store.database.do(lambda s, at=at, seen=seen: keep_seen(s, run.id, at, [seen]))  # type: ignore[misc]
        batch.clear()

    for file in files:
        report = read_report(file)
        if isinstance(report, Problem):
            out.refused.append(report)
            continue
        out.read.append(file)
        at = min(report.at.replace("Z", ".000Z") if "." not in report.at else report.at, now())
        if known.get(report.host, "") >= at:
            out.old += 1
            continue
        known[report.host] = at
        seen = seen_in(report, pipeline, waivers)
        batch.append((at, seen))
        out.hosts += 1
        out.states[seen.state] = out.states.get(seen.state, 0) + 1
        if len(batch) == _BATCH:
            write()
    write()
    return out
