# SPDX-License-Identifier: Apache-2.0
"""The store's tables, version by version: ``migrations/NNNN.sql`` leads from the version before to NNNN."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from orchestrator.store.database import Database, Statements, StoreError


@cache
def migrations() -> dict[int, str]:
    """Version → what leads to it, ascending and without a gap."""
    folder = Path(__file__).parent / "migrations"
    found = {int(p.stem): p.read_text(encoding="utf-8") for p in sorted(folder.glob("[0-9]*.sql"))}
    assert list(found) == list(range(1, len(found) + 1)), "a migration is missing"  # noqa: S101
    return found


def statements_of(text: str) -> list[str]:
    """The statements of a migration, without comments."""
    lines = [line.split("--")[0].rstrip() for line in text.splitlines()]
    return [s.strip() for s in "\n".join(lines).split(";") if s.strip()]


def version(database: Database) -> int:
    """The version of the tables that are there; 0 = none."""

    def look(s: Statements) -> int:
        s.all("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, at TEXT NOT NULL)")
        return int(s.all("SELECT coalesce(max(version), 0) FROM schema_version")[0][0])

    try:
        return int(database.read("SELECT coalesce(max(version), 0) FROM schema_version")[0][0])
    except Exception:
        return database.do(look)


def check_version(database: Database) -> None:
    """Raise :class:`StoreError` when the tables are not of this version of the tool. Changes nothing."""
    try:
        found = int(database.read("SELECT coalesce(max(version), 0) FROM schema_version")[0][0])
    except StoreError as error:
        if not any(words in error.problems[0].why for words in ("no such table", "does not exist")):
            raise
        found = 0
    known = max(migrations())
    if found > known:
        raise _newer(database, found, known)
    if found < known:
        why = f"its tables have version {found}, this kdo reads {known}, and may not change them here"
        raise StoreError("the store is older than this kdo", where=database.name, why=why,
                         fix="kdo status --store URL (any verb that may write brings it up to date)")  # fmt: skip


def _newer(database: Database, found: int, known: int) -> StoreError:
    why = f"its tables have version {found}, this kdo knows {known}"
    return StoreError("the store is newer than this kdo", where=database.name, why=why, fix="use the newer kdo")


def migrate(database: Database, at: str, *, upto: int | None = None) -> int:
    """Bring the tables to this version of the tool, each step in a transaction of its own. Returns the steps taken.

    Raises :class:`StoreError` when the store was made by a newer version of the tool.
    """
    goal = upto if upto is not None else max(migrations())
    now = version(database)
    if now > max(migrations()):
        raise _newer(database, now, max(migrations()))
    taken = 0
    for number in range(now + 1, goal + 1):

        def step(s: Statements, number: int = number) -> int:
            database.exclusive(s)
            if s.all("SELECT 1 FROM schema_version WHERE version = ?", (number,)):
                return 0  # somebody else was quicker
            for statement in statements_of(migrations()[number]):
                s.all(statement.format(**database.words))
            s.all("INSERT INTO schema_version (version, at) VALUES (?, ?)", (number, at))
            return 1

        taken += database.do(step)
    return taken
