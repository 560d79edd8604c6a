# SPDX-License-Identifier: Apache-2.0
"""What only one may do at a time. A lease is renewed while its owner lives; one that was not renewed for long is free again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from orchestrator.store.database import Database, Statements
from orchestrator.store.store import marks, moment

#: Seconds between two signs of life, and how long a silent owner is believed in: more than three of them.
BEAT = 10
PATIENCE = 45


def take(database: Database, names: Sequence[str], owner: str, now: datetime, about: str = "") -> dict[str, str]:
    """Take leases for an owner. Returns those that somebody else holds: name → who, and what about."""
    at, old = moment(now), moment(now - timedelta(seconds=PATIENCE))

    def work(s: Statements) -> dict[str, str]:
        held: dict[str, str] = {}
        for name in names:
            taken = s.changed(
                "INSERT INTO lease (name, owner, about, taken, beat) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE "
                "SET owner = excluded.owner, about = excluded.about, taken = excluded.taken, beat = excluded.beat "
                "WHERE lease.owner = excluded.owner OR lease.beat < ?",
                (name, owner, about, at, at, old),
            )
            if not taken:
                row = s.all("SELECT owner, about FROM lease WHERE name = ?", (name,))
                held[name] = " ".join(x for x in row[0] if x) if row else "somebody else"
        return held

    return database.do(work)


def renew(database: Database, owner: str, now: datetime) -> int:
    """A sign of life for everything that the owner holds; returns how much that is."""
    return database.do(lambda s: s.changed("UPDATE lease SET beat = ? WHERE owner = ?", (moment(now), owner)))


def release(database: Database, owner: str, names: Sequence[str] | None = None) -> None:
    """Give leases back; ``None`` = all of the owner's."""

    def work(s: Statements) -> None:
        if names is None:
            s.all("DELETE FROM lease WHERE owner = ?", (owner,))
            return
        for begin in range(0, len(names), 400):
            part = list(names[begin : begin + 400])
            s.all(f"DELETE FROM lease WHERE owner = ? AND name IN ({marks(part)})", (owner, *part))

    database.do(work)
