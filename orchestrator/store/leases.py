# SPDX-License-Identifier: Apache-2.0
"""What only one may do at a time. A lease is renewed while its owner lives; one that was not renewed for long is free again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from orchestrator.errors import InvalidInput
from orchestrator.store.database import Database, Statements
from orchestrator.store.store import Store, marks, moment

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


@contextmanager
def holding(store: Store, name: str, owner: str, what: str) -> Iterator[None]:
    """Hold one lease, shown to be alive by a thread with a connection of its own. Raises :class:`InvalidInput` when it is held."""
    held = take(store.database, [name], owner, datetime.now(UTC))
    if held:
        why = f"{held[name]} is at it, or was less than {PATIENCE} s ago"
        raise InvalidInput(what, where=store.name, why=why, fix="wait for it, or end it")
    over = threading.Event()

    def beat() -> None:
        with Store(store.url) as mine:
            while not over.wait(BEAT):
                renew(mine.database, owner, datetime.now(UTC))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)
        release(store.database, owner)


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
