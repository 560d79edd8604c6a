# SPDX-License-Identifier: Apache-2.0
"""Lists of what is on record, a page at a time and in some order: for people who look around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from orchestrator.store.audit import Entry, newest
from orchestrator.store.database import Database
from orchestrator.store.hosts import TAGGED, HostRow, like
from orchestrator.store.runs import HOST_OF, OPEN, HostOf
from orchestrator.store.store import marks

#: What a list of hosts can be ordered by → the columns that order it. Names decide where they are equal.
ORDERS = {
    "host": ("host",),
    "state": ("state",),
    "platform": ("arch", "hypervisor"),
    "strategy": ("strategy",),
    "kernel": ("kernel",),
    "since": ("since",),
    "seen": ("seen",),
}
_HOST = tuple(f.name for f in fields(HostRow))
_SEARCHED = ("host", "why", "kernel", "platform", "strategy", "rule", "tags", "proof")


@dataclass(frozen=True)
class Wanted:
    """Which hosts. ``words``: each of them is somewhere in what is said of the host. ``?`` as arch or hypervisor: not known."""

    states: Sequence[str] = ()
    arch: str = ""
    hypervisor: str = ""
    strategy: str = ""
    tag: str = ""
    words: Sequence[str] = ()

    def where(self) -> tuple[str, list[Any]]:
        """The condition and its values."""
        parts, values = ["1 = 1"], list[Any]()
        if self.states:
            parts.append(f"state IN ({marks(self.states)})")
            values += self.states
        for column in ("arch", "hypervisor", "strategy"):
            if wanted := getattr(self, column):
                parts.append(f"{column} = ?")
                values.append("" if wanted == "?" else wanted)
        if self.tag:
            parts.append(TAGGED)
            values.append(f"% {like(self.tag)} %")
        text = " || ' ' || ".join(_SEARCHED)
        for word in self.words:
            parts.append(rf"lower({text}) LIKE ? ESCAPE '\'")
            values.append(f"%{like(word.lower())}%")
        return " AND ".join(parts), values


def host_page(
    database: Database, wanted: Wanted, *, order: str = "host", down: bool = False, offset: int = 0, limit: int = 100
) -> tuple[int, list[HostRow]]:
    """How many hosts are like that, and some of them."""
    where, values = wanted.where()
    (total,) = database.read(f"SELECT count(*) FROM host WHERE {where}", values)[0]
    way = " DESC" if down else ""
    columns = ", ".join(f"{c}{way}" for c in dict.fromkeys((*ORDERS[order], "host")))
    sql = f"SELECT {', '.join(_HOST)} FROM host WHERE {where} ORDER BY {columns} LIMIT ? OFFSET ?"
    return total, [HostRow(*row) for row in database.read(sql, (*values, limit, offset))]


def host_row(database: Database, host: str) -> HostRow | None:
    """One host; None = it is not on record."""
    rows = database.read(f"SELECT {', '.join(_HOST)} FROM host WHERE host = ?", (host,))
    return HostRow(*rows[0]) if rows else None


def oldest_answer(database: Database) -> str:
    """When the host that has been silent longest last answered; those that never did do not count."""
    return database.read("SELECT coalesce(min(seen), '') FROM host WHERE seen <> ''")[0][0]  # type: ignore[no-any-return]


def run_host_page(
    database: Database,
    run: str,
    *,
    states: Sequence[str] = (),
    wave: int | None = None,
    offset: int = 0,
    limit: int = 100,
) -> tuple[int, list[HostOf]]:
    """How many hosts of a run are in one of these states, and some of them by name."""
    where, values = "run = ?", list[Any]([run])
    if states:
        where += f" AND state IN ({marks(states)})"
        values += states
    if wave is not None:
        where += " AND wave = ?"
        values.append(wave)
    (total,) = database.read(f"SELECT count(*) FROM run_host WHERE {where}", values)[0]
    sql = f"SELECT {', '.join(HOST_OF)} FROM run_host WHERE {where} ORDER BY host LIMIT ? OFFSET ?"
    return total, [HostOf(*row) for row in database.read(sql, (*values, limit, offset))]


def tallies(database: Database, run: str) -> dict[int, dict[str, int]]:
    """Wave → state → number of its hosts, in one pass."""
    out: dict[int, dict[str, int]] = {}
    sql = "SELECT wave, state, count(*) FROM run_host WHERE run = ? GROUP BY wave, state ORDER BY wave, state"
    for wave, state, number in database.read(sql, (run,)):
        out.setdefault(wave, {})[state] = number
    return out


def run_tallies(database: Database, runs: Sequence[str]) -> dict[str, dict[str, int]]:
    """Run → state → number of its hosts."""
    out: dict[str, dict[str, int]] = {run: {} for run in runs}
    if runs:
        sql = f"SELECT run, state, count(*) FROM run_host WHERE run IN ({marks(runs)}) GROUP BY run, state"
        for run, state, number in database.read(sql, runs):
            out[run][state] = number
    return out


def still_open(tally: dict[str, int]) -> int:
    """How many hosts of a tally are not done."""
    return sum(tally.get(s, 0) for s in OPEN)


def runs_of_host(database: Database, host: str, limit: int = 20) -> list[tuple[str, str, HostOf]]:
    """The newest runs that a host was in: id, kind, and what came of it."""
    columns = ", ".join(f"h.{c}" for c in HOST_OF)
    sql = (
        f"SELECT r.id, r.kind, {columns} FROM run_host h JOIN run r ON r.id = h.run "
        "WHERE h.host = ? ORDER BY r.created DESC, r.id DESC LIMIT ?"
    )
    return [(row[0], row[1], HostOf(*row[2:])) for row in database.read(sql, (host, limit))]


def waivers_used(database: Database) -> list[tuple[str, str, str, str, int]]:
    """Waivers that counted in the last run of a host: id, about, approver, last day, number of hosts.

    Only the last one, so that a waiver that no longer counts is not shown for ever.
    """
    sql = (
        "SELECT w.waiver, w.about, w.approver, w.expires, count(DISTINCT w.host) FROM waiver_used w "
        "JOIN host h ON h.host = w.host AND h.run = w.run GROUP BY 1, 2, 3, 4 ORDER BY w.expires, w.waiver"
    )
    return [(i, a, p, e, n) for i, a, p, e, n in database.read(sql)]


def audit_page(database: Database, offset: int, limit: int) -> tuple[int, list[Entry]]:
    """How many entries the audit trail has, and some of them, the newest first."""
    (total,) = database.read("SELECT count(*) FROM audit")[0]
    return total, newest(database, limit, offset)


def proofs_of(database: Database, host: str, limit: int = 50) -> list[str]:
    """The hashes of a host's proofs, the newest first."""
    return [
        h for (h,) in database.read("SELECT hash FROM proof WHERE host = ? ORDER BY at DESC LIMIT ?", (host, limit))
    ]


def cells(database: Database) -> dict[tuple[str, str], dict[str, int]]:
    """Arch and hypervisor → strategy → number of hosts."""
    out: dict[tuple[str, str], dict[str, int]] = {}
    sql = "SELECT arch, hypervisor, strategy, count(*) FROM host GROUP BY arch, hypervisor, strategy"
    for arch, hypervisor, strategy, number in database.read(sql):
        out.setdefault((arch, hypervisor), {})[strategy] = number
    return out


def run_states(database: Database) -> dict[tuple[str, str], int]:
    """Kind and state → number of runs on record."""
    return {(k, s): n for k, s, n in database.read("SELECT kind, state, count(*) FROM run GROUP BY kind, state")}
