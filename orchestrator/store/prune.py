# SPDX-License-Identifier: Apache-2.0
"""What is forgotten: old runs, and documents that nothing refers to any more."""

from __future__ import annotations

from orchestrator.store import audit
from orchestrator.store.database import Database, Statements
from orchestrator.store.runs import ALIVE
from orchestrator.store.store import marks


def prune(database: Database, before: str, at: str, who: str) -> dict[str, int]:
    """Remove ended runs that began before that moment, and documents that nothing refers to any more. The audit trail stays."""

    def work(s: Statements) -> dict[str, int]:
        database.exclusive(s)
        ended = marks(ALIVE)
        old = [
            r for (r,) in s.all(f"SELECT id FROM run WHERE created < ? AND state NOT IN ({ended})", (before, *ALIVE))
        ]
        for table, column in (
            ("waiver_used", "run"),
            ("run_host", "run"),
            ("shard", "run"),
            ("wave", "run"),
            ("run", "id"),
        ):
            s.many(f"DELETE FROM {table} WHERE {column} = ?", [(r,) for r in old])
        seen = s.changed(
            "DELETE FROM sighting WHERE last_seen < ? AND NOT EXISTS "
            "(SELECT 1 FROM host WHERE host.host = sighting.host AND host.facts = sighting.facts)", (before,),
        )  # fmt: skip
        used = " UNION ".join(
            f"SELECT {c} FROM {t}"
            for t, c in (("host", "facts"), ("host", "plan"), ("host", "verdict"), ("run_host", "plan"), ("run_host", "outcome"),
                         ("run_host", "verdict"), ("sighting", "facts"), ("proof", "hash"))
        )  # fmt: skip
        gone = s.changed(f"DELETE FROM document WHERE kind <> 'policy' AND hash NOT IN ({used})")
        found = {"runs": len(old), "sightings": seen, "documents": gone}
        audit.append(
            database, s, key=f"prune:{at}", at=at, who=who, what="pruned", subject=f"before {before}", detail=found
        )
        return found

    return database.do(work)
