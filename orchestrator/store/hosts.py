# SPDX-License-Identifier: Apache-2.0
"""What is known of each host: its state now, its facts over time, its proofs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.documents.facts import Facts
from orchestrator.documents.proof import Proof, Standing
from orchestrator.store.database import Database, Row, Statements
from orchestrator.store.store import Store, marks, pack, put_documents

#: Every state that a host can be in, the ones that need somebody first.
STATES = {
    "failed": "something went wrong on it, or it does not validate",
    "unreachable": "it did not answer",
    "drift": "it is not as the policy wants it",
    "pending reboot": "everything is set, and in force after its next reboot",
    "refused": "nothing may be done: knowledge or policy says no, and why",
    "unsupported": "it is decided and explained, but its distribution or boot stack cannot be changed",
    "waived": "something is wrong that somebody has approved for a time",
    "proof expired": "it validates, but its last proof was for another kernel or another configuration",
    "changed": "the last run changed it, and it validates",
    "compliant": "it is as the policy wants it, and validates",
}  # fmt: skip
#: States in which nobody has to do anything now.
FINE = ("compliant", "changed", "waived", "proof expired", "unsupported")
#: The condition of one tag; its value is ``% TAG %``.
TAGGED = r"' ' || tags || ' ' LIKE ? ESCAPE '\'"
_PART = 500  # names in one statement

_COLUMNS = (
    "host", "state", "why", "arch", "hypervisor", "platform", "strategy", "rule", "kernel", "desired", "proof", "tags",
    "facts", "plan", "verdict", "policy_hash", "run", "seen", "tried", "since",
)  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A document that is on its way into the store."""

    kind: str
    hash: str
    body: bytes

    @classmethod
    def of(cls, kind: str, document: object) -> Document:
        """Pack a document."""
        return cls(kind, *pack(document))


@dataclass(frozen=True)
class Seen:
    """What one look at a host, or one change of it, gives. ``answered=False``: only its state and the reason are new."""

    host: str
    state: str
    why: str = ""
    arch: str = ""
    hypervisor: str = ""
    platform: str = ""
    strategy: str = ""
    rule: str = ""
    kernel: str = ""
    desired: str = ""
    proof: str = ""
    tags: tuple[str, ...] = ()
    policy_hash: str = ""
    answered: bool = True
    final: bool = True  # nothing more of this run is to come for the host
    result: str = ""  # what the run says of it; "" = its state
    documents: Mapping[str, Document] = field(default_factory=dict)  # facts | plan | verdict | outcome
    waivers: Sequence[tuple[str, str, str, str]] = ()  # id, about, approver, expires

    def hash_of(self, kind: str) -> str:
        """Hash of one of its documents, "" where there is none."""
        return self.documents[kind].hash if kind in self.documents else ""


@dataclass(frozen=True)
class HostRow:
    """One row of the table of hosts, in the order of its columns."""

    host: str
    state: str
    why: str
    arch: str
    hypervisor: str
    platform: str
    strategy: str
    rule: str
    kernel: str
    desired: str
    proof: str
    tags: str
    facts: str
    plan: str
    verdict: str
    policy_hash: str
    run: str
    seen: str
    tried: str
    since: str


def keep_seen(s: Statements, run: str, at: str, found: Sequence[Seen]) -> None:
    """Write what was seen of some hosts, inside a transaction: documents, table of hosts, sightings, the run's own rows."""
    put_documents(s, [(d.hash, d.kind, d.body) for h in found for d in h.documents.values()])
    answered = [h for h in found if h.answered and h.documents.get("facts")]
    others = [h for h in found if not (h.answered and h.documents.get("facts"))]
    update = ", ".join(f"{c} = excluded.{c}" for c in _COLUMNS[1:-1])
    insert = f"INSERT INTO host ({', '.join(_COLUMNS)}) VALUES ({marks(_COLUMNS)}) ON CONFLICT (host) DO UPDATE SET "
    since = "since = CASE WHEN host.state = excluded.state THEN host.since ELSE excluded.since END"
    s.many(f"{insert}{update}, {since}", [_row(h, run, at, at) for h in answered])
    few = "state = excluded.state, why = excluded.why, run = excluded.run, tried = excluded.tried"
    s.many(f"{insert}{few}, {since}", [_row(h, run, "", at) for h in others])
    s.many(
        "INSERT INTO sighting (host, facts, first_seen, last_seen) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (host, facts) DO UPDATE SET last_seen = excluded.last_seen",
        [(h.host, h.hash_of("facts"), at, at) for h in answered],
    )
    s.many(
        "INSERT INTO waiver_used (run, host, waiver, about, approver, expires) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (run, host, waiver, about) DO NOTHING",
        [(run, h.host, *w) for h in found for w in h.waivers],
    )
    s.many(
        "UPDATE run_host SET state = ?, outcome = CASE WHEN ? = '' THEN outcome ELSE ? END, "
        "verdict = CASE WHEN ? = '' THEN verdict ELSE ? END, plan = CASE WHEN plan = '' THEN ? ELSE plan END, "
        "at = ?, why = ? WHERE run = ? AND host = ?",
        [
            (
                (h.result or h.state) if h.final else "running", *[h.hash_of("outcome")] * 2, *[h.hash_of("verdict")] * 2,
                h.hash_of("plan"), at, h.why, run, h.host,
            )
            for h in found
        ],
    )  # fmt: skip


def _row(h: Seen, run: str, seen: str, at: str) -> Row:
    return (
        h.host, h.state, h.why, h.arch, h.hypervisor, h.platform, h.strategy, h.rule, h.kernel, h.desired, h.proof,
        " ".join(h.tags), h.hash_of("facts"), h.hash_of("plan"), h.hash_of("verdict"), h.policy_hash, run, seen, at, at,
    )  # fmt: skip


def set_state(s: Statements, hosts: Sequence[str], state: str, why: str, at: str) -> None:
    """Say something new of hosts of which nothing else is new."""
    s.many(
        "UPDATE host SET since = CASE WHEN state = ? THEN since ELSE ? END, state = ?, why = ? WHERE host = ?",
        [(state, at, state, why, host) for host in hosts],
    )


@dataclass(frozen=True)
class Numbers:
    """How many hosts there are of what. ``silent``: that have not answered since a moment."""

    states: dict[str, int]  # those that need somebody first; only states that occur
    cells: list[tuple[str, str, str, int]]  # arch, hypervisor, state, number of hosts
    proofs: dict[str, int]
    silent: int


def numbers(database: Database, silent_since: str) -> Numbers:
    """The whole fleet in one pass over its table: at 100,000 hosts each pass is what a status costs."""
    sql = (
        "SELECT arch, hypervisor, state, proof, count(*), sum(CASE WHEN seen < ? THEN 1 ELSE 0 END) FROM host "
        "GROUP BY arch, hypervisor, state, proof"
    )
    states, cells, proofs, silent = Counter[str](), Counter[tuple[str, str, str]](), Counter[str](), 0
    for arch, hypervisor, state, proof, count, quiet in database.read(sql, (silent_since,)):
        states[state] += count
        cells[(arch, hypervisor, state)] += count
        silent += quiet
        if proof:
            proofs[proof] += count
    order = [s for s in (*STATES, *sorted(set(states) - set(STATES))) if s in states]
    rows = [(a, h, s, n) for (a, h, s), n in sorted(cells.items())]
    return Numbers({s: states[s] for s in order}, rows, dict(sorted(proofs.items())), silent)


def hosts(
    database: Database, *, states: Sequence[str] = (), names: Sequence[str] = (), tag: str = "", run: str = "",
    limit: int | None = None,
) -> Iterator[HostRow]:  # fmt: skip
    """Hosts by name, few at a time: of some states, some names (``*`` stands for anything), one tag, one run."""
    where, values = ["1 = 1"], list[object]()
    if states:
        where.append(f"state IN ({marks(states)})")
        values += states
    if names:
        where.append("(" + " OR ".join(r"host LIKE ? ESCAPE '\'" for _ in names) + ")")
        values += [like(n) for n in names]
    if tag:
        where.append(TAGGED)
        values.append(f"% {like(tag)} %")
    if run:
        where.append("run = ?")
        values.append(run)
    sql = f"SELECT {', '.join(_COLUMNS)} FROM host WHERE {' AND '.join(where)} ORDER BY host"
    if limit is not None:
        sql += " LIMIT ?"
        values.append(limit)
    for row in database.stream(sql, values):
        yield HostRow(*row)


def like(text: str) -> str:
    """A name with ``*`` and ``?`` as a pattern of LIKE … ESCAPE."""
    for c in "\\%_":
        text = text.replace(c, "\\" + c)
    return text.replace("*", "%").replace("?", "_")


def states_of(database: Database, names: Sequence[str]) -> dict[str, str]:
    """Host → its state now, for those that are known."""
    out: dict[str, str] = {}
    for begin in range(0, len(names), _PART):
        part = names[begin : begin + _PART]
        out.update(database.read(f"SELECT host, state FROM host WHERE host IN ({marks(part)})", part))
    return out


def facts_of(store: Store, names: Sequence[str] = ()) -> Iterator[tuple[HostRow, Facts]]:
    """The last facts of hosts, one host at a time."""
    for row in hosts(store.database, names=names):
        if row.facts:
            yield row, store.document(row.facts, Facts)


def history(database: Database, host: str) -> list[tuple[str, str, str]]:
    """Every different facts of one host: hash, first seen, last seen; oldest first."""
    sql = "SELECT facts, first_seen, last_seen FROM sighting WHERE host = ? ORDER BY first_seen"
    return [(f, a, b) for f, a, b in database.read(sql, (host,))]


def keep_proof(database: Database, proof: Proof) -> None:
    """Keep a crash test; the same one again is the same. A host that is still as it was crashed is told proven, or not, at once."""
    document = Document.of("proof", proof)

    def work(s: Statements) -> None:
        put_documents(s, [(document.hash, "proof", document.body)])
        s.all(
            "INSERT INTO proof (hash, host, at, how, outcome, kernel, desired) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (hash) DO NOTHING",
            (document.hash, proof.host, proof.at, proof.how, proof.outcome, proof.kernel, proof.state),
        )
        if proof.how != "crash-test" or proof.outcome == "unfinished":
            return
        as_it_is = "host = ? AND kernel = ? AND desired = ?"
        later = "SELECT 1 FROM proof WHERE proof.host = host.host AND proof.at > ? AND proof.outcome <> 'unfinished'"
        where, values = f"{as_it_is} AND NOT EXISTS ({later})", (proof.host, proof.kernel, proof.state, proof.at)
        word = "proven" if proof.proven else Standing().state
        s.all(f"UPDATE host SET proof = ? WHERE {where}", (word, *values))
        if proof.proven:
            fine = "UPDATE host SET state = 'compliant', why = '', since = ? WHERE state = 'proof expired' AND"
            s.all(f"{fine} {where}", (proof.at, *values))

    database.do(work)


def proofs_in(store: Store, run: str, shard: int) -> list[Proof]:
    """The crash tests of a shard's hosts, in one query for all of them."""
    return _crash_tests(store, "JOIN run_host h ON h.host = p.host WHERE h.run = ? AND h.shard = ? AND", (run, shard))


def proofs_about(store: Store, names: Sequence[str]) -> list[Proof]:
    """The crash tests of these hosts."""
    parts = [names[begin : begin + _PART] for begin in range(0, len(names), _PART)]
    return [p for part in parts for p in _crash_tests(store, f"WHERE p.host IN ({marks(part)}) AND", part)]


def _crash_tests(store: Store, which: str, values: Sequence[object]) -> list[Proof]:
    sql = f"SELECT d.body, d.hash FROM proof p JOIN document d ON d.hash = p.hash {which} p.how = 'crash-test' ORDER BY p.at"
    return [store.decode(body, Proof, hash) for body, hash in store.database.read(sql, values)]


def proven_since(database: Database, run: str, wave: int) -> str:
    """A host of a wave that has left a vmcore since the run was done with it, as it is now; "" = there is none."""
    sql = (
        "SELECT h.host FROM run_host h JOIN proof p ON p.host = h.host JOIN host x ON x.host = h.host "
        "WHERE h.run = ? AND h.wave = ? AND p.how = 'crash-test' AND p.outcome = 'dumped' AND p.at >= substr(h.at, 1, 19) "
        "AND p.kernel = x.kernel AND p.desired = x.desired ORDER BY p.at LIMIT 1"
    )
    return "".join(host for (host,) in database.read(sql, (run, wave)))


def with_proof(seen: Seen, standing: Standing | None) -> Seen:
    """The same with what its proofs say; a host that validates is "proof expired" when they were about something else."""
    if standing is None:
        return seen
    state = "proof expired" if standing.state == "proof expired" and seen.state == "compliant" else seen.state
    return replace(seen, proof=standing.state, state=state, why=standing.why if state != seen.state else seen.why)
