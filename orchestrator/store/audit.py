# SPDX-License-Identifier: Apache-2.0
"""Who did what: entries are only ever added, and each carries the hash of the one before it.

Whoever changes, removes or inserts an entry afterwards breaks the chain from there on. A chain whose end was cut off is
whole by itself: keep the last hash elsewhere (``kdo audit verify`` prints it) and give it to the next verification.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.store.database import Database, Statements


@dataclass(frozen=True)
class Entry:
    """One entry. ``detail`` is JSON text; ``previous`` the hash of the entry before, "" for the first."""

    number: int
    key: str
    at: str
    who: str
    what: str
    subject: str
    detail: str
    previous: str
    hash: str

    def expected(self) -> str:
        """What its hash must be."""
        return _hash(self.number, self.key, self.at, self.who, self.what, self.subject, self.detail, self.previous)

    def document(self) -> dict[str, Any]:
        """For readers that are programs: ``detail`` as an object; as the text that it is where somebody spoilt it."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        with suppress(ValueError):
            found["detail"] = json.loads(self.detail)
        return found


@dataclass(frozen=True)
class Verified:
    """What came of a verification: ``broken`` is the first entry that does not fit (None = none), and why."""

    entries: int
    last: str
    broken: int | None = None
    why: str = ""


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()


def append(
    database: Database, s: Statements, *, key: str, at: str, who: str, what: str, subject: str,
    detail: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Add an entry inside the transaction that does what it is about. The same ``key`` again adds nothing."""
    database.exclusive(s)
    if s.all("SELECT 1 FROM audit WHERE key = ?", (key,)):
        return
    last = s.all("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")
    number, previous = (last[0][0] + 1, last[0][1]) if last else (1, "")
    text = json.dumps(dict(detail or {}), sort_keys=True)
    values = (number, key, at, who, what, subject, text, previous)
    s.all(f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, _hash(*values)))


_COLUMNS = ", ".join(f.name for f in fields(Entry))


def entries(database: Database, since: int = -(1 << 60)) -> Iterator[Entry]:
    """The entries after that number, oldest first."""
    sql = f"SELECT {_COLUMNS} FROM audit WHERE number > ? ORDER BY number"
    for row in database.stream(sql, (since,)):
        yield Entry(*row)


def newest(database: Database, count: int, offset: int = 0) -> list[Entry]:
    """The newest entries but for ``offset`` of them, the newest first."""
    sql = f"SELECT {_COLUMNS} FROM audit ORDER BY number DESC LIMIT ? OFFSET ?"
    return [Entry(*row) for row in database.read(sql, (count, offset))]


def verify(database: Database, known: str = "") -> Verified:
    """Hold the whole chain against itself. ``known``: a hash that was noted earlier and must still be in it."""
    previous, number, seen = "", 0, not known
    for entry in entries(database):
        if entry.number != number + 1:
            return Verified(number, previous, number + 1, f"entry {number + 1} is missing")
        if entry.previous != previous:
            return Verified(number, previous, entry.number, "it does not follow the entry before it")
        if entry.expected() != entry.hash:
            return Verified(number, previous, entry.number, "its text is not what was hashed")
        previous, number = entry.hash, entry.number
        seen = seen or entry.hash == known
    if not seen:
        return Verified(
            number, previous, number + 1, "the hash that was noted earlier is not in the chain: its end was cut off"
        )
    return Verified(number, previous)
