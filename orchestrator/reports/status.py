# SPDX-License-Identifier: Apache-2.0
"""The numbers of a fleet as a document."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.documents.dashboard import Cell, FleetStatus
from orchestrator.store.hosts import Numbers
from orchestrator.store.store import moment

#: A host that has not answered for so long is silent.
SILENT_DAYS = 7


def silent_since(now: datetime) -> str:
    """The moment since which a silent host has not answered."""
    return moment(now - timedelta(days=SILENT_DAYS))


def fleet_status(found: Numbers) -> FleetStatus:
    """What `kdo status --format json` prints and `kdo serve` answers."""
    return FleetStatus(
        hosts=sum(found.states.values()),
        states=found.states,
        proofs=found.proofs,
        silent=found.silent,
        platforms=[Cell(arch=a, hypervisor=h, state=s, hosts=n) for a, h, s, n in found.cells],
    )
