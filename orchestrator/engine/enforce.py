# SPDX-License-Identifier: Apache-2.0
"""What one round of enforcement may change: within the policy's level, its budget, and the patience with hosts that do not stay.

Pure: which hosts drift, what was done lately and the rollout are given; the choice follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.documents.plan import HostPlan, Rollout
from orchestrator.fleet.rollout import share
from orchestrator.store import runs
from orchestrator.store.database import Database
from orchestrator.store.runs import RunRow
from orchestrator.store.store import Store, marks, moment

#: Hours that the budget and the patience look back.
HOURS = 24
#: Times within these hours that a host is changed, or tried, before a person has to look.
PATIENCE = 3


@dataclass(frozen=True)
class Drifting:
    """A host that the policy would have changed: the hash of its stored plan, and how often it was tried lately."""

    host: str
    plan: str
    tried: int = 0


@dataclass
class Choice:
    """What this round changes, and what it leaves: host → why."""

    chosen: list[Drifting] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    stopped: str = ""  # why nothing at all is changed


def choose(drifting: Sequence[Drifting], rollout: Rollout, looked_at: int, spent: int) -> Choice:
    """Which of the drifting hosts are changed now. ``spent``: hosts that enforcement has changed within the last 24 hours.

    More drift at once than ``max_hosts`` is more likely a wrong policy than a wrong fleet: nothing is changed then.
    """
    out = Choice()
    for d in drifting:
        if d.tried >= PATIENCE:
            out.left[d.host] = (
                f"it was changed or tried {d.tried} times in {HOURS} hours and does not stay: somebody undoes it, or it fails"
            )
    able = [d for d in drifting if d.host not in out.left]
    if rollout.max_hosts is not None and len(able) > rollout.max_hosts:
        out.stopped = (
            f"{len(able)} hosts drift at once, the policy allows {rollout.max_hosts} (rollout.max_hosts): "
            "look at the policy first, then kdo apply --max-hosts"
        )
        return out
    room = len(able)
    if rollout.budget:
        allowed = share(rollout.budget, looked_at)
        room = max(0, allowed - spent)
        for d in able[room:]:
            out.left[d.host] = (
                f"the budget of {allowed} hosts in {HOURS} hours is spent (rollout.budget {rollout.budget})"
            )
    out.chosen = able[:room]
    return out


def spent_lately(database: Database, now: datetime) -> int:
    """Hosts that enforcement has changed in the last hours."""
    return len(_tried(database, now, ("changed",)))


def _tried(database: Database, now: datetime, states: Sequence[str]) -> Mapping[str, int]:
    since = moment(now.astimezone(UTC) - timedelta(hours=HOURS))
    found: dict[str, int] = dict(
        database.read(
            "SELECT h.host, count(*) FROM run_host h JOIN run r ON r.id = h.run WHERE r.kind = 'enforce' "  # noqa: S608  (only marks)
            f"AND r.created >= ? AND h.state IN ({marks(states)}) GROUP BY h.host",
            (since, *states),
        )
    )
    return found


def drifting_of(store: Store, sweep: RunRow, now: datetime, *, reboot: bool) -> Iterator[Drifting]:
    """The hosts of a sweep that the policy wants changed, and does not only audit."""
    tried = _tried(store.database, now, ("changed", "pending reboot", "undone", "undo-incomplete", "failed"))
    states = ("drift", "pending reboot") if reboot else ("drift",)
    for row in runs.hosts_of(store.database, sweep.id, states=states):
        if not row.plan:
            continue
        plan = store.document(row.plan, HostPlan)
        if plan.status == "changes" and (plan.changes or reboot):
            yield Drifting(row.host, row.plan, tried.get(row.host, 0))
