# SPDX-License-Identifier: Apache-2.0
"""Runs: what was asked for, in which waves and shards, and what came of every host."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from orchestrator.errors import InvalidInput, did_you_mean
from orchestrator.store import audit
from orchestrator.store.database import Database, Statements
from orchestrator.store.store import marks, moment

#: States of a run in which somebody is, or may be, working on it.
ALIVE = ("planned", "running", "pausing", "cancelling")
#: States from which `kdo runs resume` goes on.
RESUMABLE = ("planned", "paused", "held", "interrupted", "failed", "running", "pausing")
#: Kinds of runs that change nothing.
LOOKING = ("sweep", "look")
#: States of a host in a run that are not what came of it.
OPEN = ("waiting", "running")
#: States of a host in a run that need somebody.
BAD = ("failed", "undone", "undo-incomplete", "transaction refused", "stale", "busy", "unreachable")
_CHUNK = 2000  # rows of one transaction
_SHARD = "number, wave, site, state, attempt, worker, beat, why"

_RUN = (
    "id", "kind", "state", "who", "tool", "policy", "policy_hash", "inventory_hash", "plan_hash", "settings", "hosts",
    "created", "started", "ended", "why",
)  # fmt: skip


@dataclass(frozen=True)
class RunRow:
    """One run. ``settings``: how it was asked for."""

    id: str
    kind: str
    state: str
    who: str
    tool: str
    policy: str
    policy_hash: str
    inventory_hash: str
    plan_hash: str
    settings: Mapping[str, Any]
    hosts: int
    created: str
    started: str | None
    ended: str | None
    why: str


@dataclass(frozen=True)
class WaveRow:
    """One wave of a run."""

    number: int
    name: str
    state: str
    hosts: int
    failed: int
    started: str | None
    ended: str | None
    why: str


@dataclass(frozen=True)
class ShardRow:
    """One shard: some hosts of one wave that one worker does at a time."""

    number: int
    wave: int
    site: str
    state: str
    attempt: int
    worker: str
    beat: str | None
    why: str


@dataclass(frozen=True)
class HostOf:
    """One host in one run; the documents by their hashes."""

    host: str
    wave: int
    shard: int
    state: str
    before: str
    plan: str
    outcome: str
    verdict: str
    attempts: int
    at: str | None
    why: str


HOST_OF = tuple(f.name for f in fields(HostOf))


@dataclass(frozen=True)
class Placed:
    """Where a host goes in a new run."""

    host: str
    wave: int
    shard: int
    site: str = ""
    plan: str = ""
    before: str = ""


def new_id(at: datetime) -> str:
    """A name for a run that sorts by time and can be typed: 20261124-0147-3f9a."""
    return f"{at.astimezone(UTC):%Y%m%d-%H%M}-{secrets.token_hex(2)}"


def create(database: Database, run: RunRow) -> None:
    """Enter a run; its hosts come with :func:`place`."""
    values = [json.dumps(run.settings, sort_keys=True) if c == "settings" else getattr(run, c) for c in _RUN]

    def work(s: Statements) -> None:
        s.all(f"INSERT INTO run ({', '.join(_RUN)}) VALUES ({marks(_RUN)}) ON CONFLICT (id) DO NOTHING", values)
        audit.append(
            database, s, key=f"{run.id}:created", at=run.created, who=run.who, what=f"{run.kind} begun", subject=run.id,
            detail={"policy": run.policy, "policy_hash": run.policy_hash, "plan": run.plan_hash, "settings": run.settings},
        )  # fmt: skip

    database.do(work)


def place(database: Database, run: str, placed: Iterable[Placed], names: Mapping[int, str] | None = None) -> int:
    """Enter the hosts of a run with their waves and shards, few at a time. Returns how many there are."""
    waves: dict[int, int] = {}
    shards: dict[int, tuple[int, str]] = {}
    total = 0

    def write(part: Sequence[Placed]) -> None:
        rows = [(run, p.host, p.wave, p.shard, "waiting", p.before, p.plan) for p in part]
        sql = (
            "INSERT INTO run_host (run, host, wave, shard, state, before, plan) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (run, host) DO NOTHING"
        )
        database.do(lambda s: s.many(sql, rows))

    part: list[Placed] = []
    for p in placed:
        part.append(p)
        waves[p.wave] = waves.get(p.wave, 0) + 1
        shards[p.shard] = (p.wave, p.site)
        total += 1
        if len(part) == _CHUNK:
            write(part)
            part = []
    write(part)

    def finish(s: Statements) -> None:
        s.many(
            "INSERT INTO wave (run, number, name, state, hosts) VALUES (?, ?, ?, 'waiting', ?) "
            "ON CONFLICT (run, number) DO UPDATE SET hosts = wave.hosts + excluded.hosts",
            [(run, n, (names or {}).get(n, ""), c) for n, c in sorted(waves.items())],
        )
        s.many(
            "INSERT INTO shard (run, number, wave, site, state) VALUES (?, ?, ?, ?, 'waiting') ON CONFLICT DO NOTHING",
            [(run, n, w, site) for n, (w, site) in sorted(shards.items())],
        )
        s.all("UPDATE run SET hosts = hosts + ? WHERE id = ?", (total, run))

    database.do(finish)
    return total


def get(database: Database, id: str) -> RunRow:
    """One run, by its id or by a beginning of it that only one has; "last" is the newest."""
    sql = f"SELECT {', '.join(_RUN)} FROM run"
    if id == "last":
        # What a rollout looks at again on its way is not what somebody means who has just begun a rollout.
        rows = database.read(f"{sql} WHERE kind <> 'look' ORDER BY created DESC, id DESC LIMIT 1")
    else:
        rows = database.read(f"{sql} WHERE id = ?", (id,)) or database.read(
            f"{sql} WHERE substr(id, 1, ?) = ?", (len(id), id)
        )
    if len(rows) != 1:
        known = [r[0] for r in database.read("SELECT id FROM run ORDER BY created DESC LIMIT 500")]
        why = f"{len(rows)} runs begin so" if rows else "none is on record" if not known else "no run has that id"
        raise InvalidInput(f"there is no run {id!r}", why=why, fix=did_you_mean(id, known) or "kdo runs list")
    return _run(rows[0])


def _run(row: Sequence[Any]) -> RunRow:
    values = dict(zip(_RUN, row, strict=True))
    values["settings"] = json.loads(values["settings"])
    return RunRow(**values)


def listed(database: Database, limit: int, kind: str = "") -> list[RunRow]:
    """The newest runs, newest first."""
    where, values = ("WHERE kind = ?", [kind, limit]) if kind else ("", [limit])
    sql = f"SELECT {', '.join(_RUN)} FROM run {where} ORDER BY created DESC, id DESC LIMIT ?"
    return [_run(r) for r in database.read(sql, values)]


def state_of(database: Database, run: str) -> str:
    """The state of a run, "" when it is gone."""
    rows = database.read("SELECT state FROM run WHERE id = ?", (run,))
    return rows[0][0] if rows else ""


def move(
    database: Database, run: str, state: str, at: str, *, who: str = "", only_from: Sequence[str] = (), why: str = "",
    what: str = "",
) -> bool:  # fmt: skip
    """Bring a run into another state; ``only_from``: not from any other than these. Says whether it was done."""
    ended = at if state in ("done", "failed", "cancelled", "paused", "held", "interrupted") else None

    def work(s: Statements) -> bool:
        where = f" AND state IN ({marks(only_from)})" if only_from else ""
        sql = f"UPDATE run SET state = ?, why = ?, started = coalesce(started, ?), ended = ? WHERE id = ?{where}"
        if not s.changed(sql, (state, why, at if state == "running" else None, ended, run, *only_from)):
            return False
        if who:
            detail = {"why": why} if why else {}
            key = f"{run}:{what or state}:{at}"
            audit.append(database, s, key=key, at=at, who=who, what=what or state, subject=run, detail=detail)
        return True

    return database.do(work)


def waves(database: Database, run: str) -> list[WaveRow]:
    """The waves of a run in their order."""
    sql = "SELECT number, name, state, hosts, failed, started, ended, why FROM wave WHERE run = ? ORDER BY number"
    return [WaveRow(*r) for r in database.read(sql, (run,))]


def set_wave(database: Database, run: str, number: int, state: str, at: str, *, failed: int = 0, why: str = "") -> None:
    """A wave begins, ends, or is held back."""
    database.do(
        lambda s: s.all(
            "UPDATE wave SET state = ?, failed = ?, why = ?, started = coalesce(started, ?), ended = ? "
            "WHERE run = ? AND number = ?",
            (state, failed, why, at if state == "running" else None, at if state == "done" else None, run, number),
        )
    )


def shards(database: Database, run: str, wave: int | None = None) -> list[ShardRow]:
    """The shards of a run, or of one of its waves."""
    where, values = (" AND wave = ?", [run, wave]) if wave is not None else ("", [run])
    return [
        ShardRow(*r) for r in database.read(f"SELECT {_SHARD} FROM shard WHERE run = ?{where} ORDER BY number", values)
    ]


def shard(database: Database, run: str, number: int) -> ShardRow | None:
    """One shard of a run; None = there is no such one."""
    sql = f"SELECT {_SHARD} FROM shard WHERE run = ? AND number = ?"
    return next((ShardRow(*r) for r in database.read(sql, (run, number))), None)


def claim(database: Database, run: str, number: int, worker: str, at: str, silent_since: str) -> int:
    """Take a shard for a worker: one that waits, was lost, or whose worker has been silent. Returns the attempt, 0 = not ours."""

    def work(s: Statements) -> int:
        taken = s.changed(
            "UPDATE shard SET state = 'running', worker = ?, attempt = attempt + 1, beat = ?, "
            "started = coalesce(started, ?), ended = NULL, why = '' WHERE run = ? AND number = ? "
            "AND (state IN ('waiting', 'lost') OR (state = 'running' AND (beat IS NULL OR beat < ? OR worker = ?)))",
            (worker, at, at, run, number, silent_since, worker),
        )
        if not taken:
            return 0
        return int(s.all("SELECT attempt FROM shard WHERE run = ? AND number = ?", (run, number))[0][0])

    return database.do(work)


def beat(database: Database, run: str, number: int, worker: str, at: str) -> bool:
    """A sign of life of a shard's worker. ``False``: the shard is somebody else's now."""
    sql = "UPDATE shard SET beat = ? WHERE run = ? AND number = ? AND worker = ? AND state = 'running'"
    return database.do(lambda s: s.changed(sql, (at, run, number, worker))) > 0


def end_shard(database: Database, run: str, number: int, worker: str, state: str, at: str, why: str = "") -> bool:
    """A shard is done, lost or cancelled; ``False``: it was somebody else's already."""
    sql = "UPDATE shard SET state = ?, ended = ?, why = ? WHERE run = ? AND number = ? AND worker = ? AND state = 'running'"
    return database.do(lambda s: s.changed(sql, (state, at, why, run, number, worker))) > 0


def lose(database: Database, run: str, silent_since: str, numbers: Sequence[int] | None = None) -> list[int]:
    """Shards whose worker is gone (``numbers``) or has been silent become free. Returns them."""

    def work(s: Statements) -> list[int]:
        if numbers is None:
            found = s.all(
                "SELECT number FROM shard WHERE run = ? AND state = 'running' AND beat < ?", (run, silent_since)
            )
        else:
            sql = f"SELECT number FROM shard WHERE run = ? AND state = 'running' AND number IN ({marks(numbers)})"
            found = s.all(sql, (run, *numbers)) if numbers else []
        lost = [n for (n,) in found]
        s.many(
            "UPDATE shard SET state = 'lost', why = 'its worker is gone' WHERE run = ? AND number = ?",
            [(run, n) for n in lost],
        )
        return lost

    return database.do(work)


def hosts_of(
    database: Database, run: str, *, shard: int | None = None, wave: int | None = None, states: Sequence[str] = ()
) -> Iterator[HostOf]:
    """The hosts of a run, few at a time, by name. Those of one shard are few, and are read at once: that is tried again
    when the connection is lost, and needs no other one."""
    columns = ", ".join(HOST_OF)
    if shard is not None:
        # Neither its order nor its states are for the database: SQLite would go through the whole run for them.
        found = (HostOf(*r) for r in database.read(f"SELECT {columns} FROM run_host WHERE run = ? AND shard = ?", (run, shard)))  # fmt: skip
        chosen = (h for h in found if (wave is None or h.wave == wave) and (not states or h.state in states))
        yield from sorted(chosen, key=lambda h: h.host.encode())
        return
    where, values = "run = ?", list[Any]([run])
    if wave is not None:
        where += " AND wave = ?"
        values.append(wave)
    if states:
        where += f" AND state IN ({marks(states)})"
        values += states
    for row in database.stream(f"SELECT {columns} FROM run_host WHERE {where} ORDER BY host", values):
        yield HostOf(*row)


def begin_hosts(database: Database, run: str, hosts: Sequence[str]) -> None:
    """These hosts are being worked on from now."""
    sql = "UPDATE run_host SET state = 'running', attempts = attempts + 1 WHERE run = ? AND host = ?"
    database.do(lambda s: s.many(sql, [(run, h) for h in hosts]))


def cancel_open(database: Database, run: str) -> None:
    """Nothing more is done on the hosts that are open."""
    sql = f"UPDATE run_host SET state = 'cancelled' WHERE run = ? AND state IN ({marks(OPEN)})"
    database.do(lambda s: s.all(sql, (run, *OPEN)))


def tally(database: Database, run: str, wave: int | None = None) -> dict[str, int]:
    """State → number of hosts of a run, or of one of its waves."""
    where, values = (" AND wave = ?", [run, wave]) if wave is not None else ("", [run])
    return dict(database.read(f"SELECT state, count(*) FROM run_host WHERE run = ?{where} GROUP BY state", values))


def compared(database: Database, before: str, after: str) -> Iterator[tuple[str, str, str]]:
    """Hosts that ended differently in two runs: name, state then, state now ("" = it was not in that run)."""
    sql = (
        "SELECT a.host, a.state, coalesce(b.state, '') FROM run_host a LEFT JOIN run_host b ON b.run = ? AND b.host = a.host "
        "WHERE a.run = ? AND a.state <> coalesce(b.state, '') UNION ALL "
        "SELECT b.host, '', b.state FROM run_host b LEFT JOIN run_host a ON a.run = ? AND a.host = b.host "
        "WHERE b.run = ? AND a.host IS NULL ORDER BY 1"
    )
    yield from ((h, a, b) for h, a, b in database.stream(sql, (after, before, before, after)))


def reopen(database: Database, run: str, states: Sequence[str]) -> int:
    """Let hosts that ended in one of these states be done again; their shards and waves too. Returns how many."""

    def work(s: Statements) -> int:
        where = f"run = ? AND state IN ({marks(states)})"
        shard = f"SELECT shard FROM run_host WHERE {where}"
        wave = f"SELECT wave FROM run_host WHERE {where}"
        s.all(f"UPDATE wave SET state = 'waiting' WHERE run = ? AND number IN ({wave})", (run, run, *states))
        s.all(f"UPDATE shard SET state = 'waiting' WHERE run = ? AND number IN ({shard})", (run, run, *states))
        return s.changed(f"UPDATE run_host SET state = 'waiting' WHERE {where}", (run, *states))

    return database.do(work)


def silent_since(now: datetime, patience: float) -> str:
    """The moment before which a last sign of life counts as silence."""
    return moment(datetime.fromtimestamp(now.timestamp() - patience, UTC))
