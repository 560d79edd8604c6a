# SPDX-License-Identifier: Apache-2.0
"""The store on SQLite and on a real PostgreSQL: the same tests, the same answers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from orchestrator.documents.proof import Proof
from orchestrator.errors import InvalidInput
from orchestrator.store import audit, leases, runs
from orchestrator.store.database import StoreError, open_database
from orchestrator.store.hosts import (
    Document,
    Seen,
    history,
    hosts,
    keep_proof,
    keep_seen,
    numbers,
    proofs_about,
    proofs_in,
    set_state,
    states_of,
)
from orchestrator.store.prune import prune as forget
from orchestrator.store.runs import Placed, RunRow
from orchestrator.store.schema import migrate, migrations, version
from orchestrator.store.store import Store, moment, now

T0 = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def later(seconds: float) -> str:
    return moment(T0 + timedelta(seconds=seconds))


def entered(store: Store, id: str = "20261124-0300-aaaa", placed=(), kind="sweep", **more) -> str:
    row = RunRow(
        id, kind, "planned", "ann", "kdo", "default", "p" * 64, "", "", {"lane": "auto"}, 0, later(0), None, None, ""
    )
    runs.create(store.database, RunRow(**{**vars(row), **more}))
    runs.place(store.database, id, placed)
    return id


def seen(host: str, state: str = "compliant", facts: object = None, **more) -> Seen:
    documents = {"facts": Document.of("facts", facts)} if facts is not None else {}
    return Seen(host, state, documents=documents, answered=facts is not None, **more)


def keep(store: Store, run: str, at: float, *found: Seen) -> None:
    store.database.do(lambda s: keep_seen(s, run, later(at), found))


def test_a_state_lasts_since_it_began_and_a_silent_host_keeps_what_is_known(store_url):
    with Store(store_url) as store:
        run = entered(store, placed=[Placed("a", 0, 0), Placed("b", 0, 0)])
        keep(store, run, 1, seen("a", "drift", {"n": 1}, arch="x86_64", why="x"), seen("b", "compliant", {"n": 2}))
        keep(
            store,
            run,
            2,
            seen("a", "drift", {"n": 1}, arch="x86_64", why="y"),
            seen("b", "unreachable", why="no route"),
        )
        a, b = hosts(store.database)
        assert (a.state, a.since, a.seen, a.why) == ("drift", later(1), later(2), "y")
        assert (b.state, b.since, b.seen, b.tried) == ("unreachable", later(2), later(1), later(2))
        assert b.facts and b.why == "no route"
        found = numbers(store.database, "9999")
        assert found.states == {"unreachable": 1, "drift": 1} and found.silent == 2
        assert sum(n for *_, n in found.cells) == 2 and numbers(store.database, "").silent == 0
        assert states_of(store.database, ["a", "b", "c"]) == {"a": "drift", "b": "unreachable"}
        store.database.do(lambda s: set_state(s, ["a"], "compliant", "", later(3)))
        assert [h.host for h in hosts(store.database, states=["compliant"])] == ["a"]


def test_facts_are_kept_once_and_every_change_of_them_is_on_record(store_url):
    with Store(store_url) as store:
        run = entered(store)
        for at, facts in enumerate([{"n": 1}, {"n": 1}, {"n": 2}, {"n": 1}]):
            keep(store, run, at, seen("a", facts=facts), seen("b", facts=facts))
        assert store.database.read("SELECT count(*) FROM document")[0][0] == 2
        one, two = history(store.database, "a")
        assert one[1:] == (later(0), later(3)) and two[1:] == (later(2), later(2))


def test_names_with_wildcards_are_names_and_nothing_else(store_url):
    odd = ["web-1", "web_1", "web%1", "db\\1", "x'; DROP TABLE host; --"]
    with Store(store_url) as store:
        run = entered(store)
        keep(store, run, 1, *(seen(h, facts={"h": h}, tags=("zone=a_b", "k")) for h in odd))
        assert [h.host for h in hosts(store.database, names=["web_1"])] == ["web_1"]
        assert {h.host for h in hosts(store.database, names=["web*"])} == set(odd[:3])
        assert [h.host for h in hosts(store.database, names=[odd[4]])] == [odd[4]]
        assert [h.host for h in hosts(store.database, names=["db\\1"])] == ["db\\1"]
        assert len(list(hosts(store.database, tag="zone=a_b"))) == 5 and not list(hosts(store.database, tag="zone=aXb"))


def test_a_shard_is_one_workers_until_that_is_silent(store_url):
    with Store(store_url) as store:
        run = entered(store, placed=[Placed("a", 0, 0), Placed("b", 0, 1)])
        db = store.database
        assert runs.claim(db, run, 0, "w1", later(0), later(-45)) == 1
        assert runs.claim(db, run, 0, "w2", later(1), later(-44)) == 0
        assert runs.beat(db, run, 0, "w1", later(10)) and not runs.beat(db, run, 0, "w2", later(10))
        assert runs.claim(db, run, 0, "w2", later(56), later(11)) == 2  # silent for more than 45 seconds
        assert not runs.beat(db, run, 0, "w1", later(57))
        assert not runs.end_shard(db, run, 0, "w1", "done", later(58)) and runs.end_shard(
            db, run, 0, "w2", "done", later(58)
        )
        assert runs.claim(db, run, 0, "w3", later(200), later(155)) == 0  # what is done stays done
        assert [s.state for s in runs.shards(db, run)] == ["done", "waiting"]


def test_only_one_holds_a_host_and_a_dead_owner_does_not_hold_it_for_ever(store_url):
    with Store(store_url) as store:
        db = store.database
        assert leases.take(db, ["host:a", "host:b"], "one", T0, "run 1") == {}
        assert leases.take(db, ["host:b", "host:c"], "two", T0) == {"host:b": "one run 1"}
        assert leases.take(db, ["host:a"], "one", T0) == {}  # its own
        leases.release(db, "one", ["host:a"])
        assert leases.take(db, ["host:a"], "two", T0) == {}
        assert leases.take(db, ["host:b"], "two", T0 + timedelta(seconds=leases.PATIENCE + 1)) == {}
        assert leases.renew(db, "one", T0) == 0 and leases.PATIENCE > 3 * leases.BEAT


def test_many_at_once_take_each_thing_once(store_url):
    """Ten threads, each with a connection of its own, want the same twenty leases and all write to the audit trail."""
    with Store(store_url):
        pass
    won: list[str] = []
    broken: list[BaseException] = []

    def work(owner: str) -> None:
        try:
            with Store(store_url) as store:
                names = [f"host:{n}" for n in range(20)]
                held = leases.take(store.database, names, owner, T0)
                won.extend(n for n in names if n not in held)
                for n in range(5):
                    store.database.do(lambda s, n=n: audit.append(
                        store.database, s, key=f"{owner}{n}", at=now(), who=owner, what="x", subject="y"))  # fmt: skip
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not broken and sorted(won) == sorted(f"host:{n}" for n in range(20))
    with Store(store_url) as store:
        found = audit.verify(store.database)
        assert (found.entries, found.broken) == (50, None)


CHANGES = {
    "a text": ("UPDATE audit SET what = 'nothing' WHERE number = 3", 3),
    "a whole entry, hash and all": ("UPDATE audit SET what = 'nothing', hash = 'aa' WHERE number = 3", 3),
    "one removed": ("DELETE FROM audit WHERE number = 2", 2),
    "the first removed": ("DELETE FROM audit WHERE number = 1", 1),
    "one given another number": ("UPDATE audit SET number = -3 WHERE number = 2", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whoever_changes_the_audit_trail_breaks_it(store_url, change):
    sql, at = CHANGES[change]
    with Store(store_url) as store:
        for n in range(5):
            store.database.do(
                lambda s, n=n: audit.append(
                    store.database, s, key=str(n), at=later(n), who="ann", what=f"did {n}", subject="x"
                )
            )
        last = audit.verify(store.database)
        assert last.broken is None and last.entries == 5
        store.database.do(lambda s: s.all(sql))
        assert audit.verify(store.database).broken == at


def test_a_trail_whose_end_was_cut_off_is_found_by_a_hash_that_was_noted(store_url):
    with Store(store_url) as store:
        for n in range(3):
            store.database.do(
                lambda s, n=n: audit.append(
                    store.database, s, key=str(n), at=later(n), who="ann", what="x", subject="y"
                )
            )
        known = audit.verify(store.database).last
        store.database.do(
            lambda s: audit.append(store.database, s, key="2", at=later(9), who="ann", what="x", subject="y")
        )
        assert audit.verify(store.database, known).broken is None and audit.verify(store.database).entries == 3
        store.database.do(lambda s: s.all("DELETE FROM audit WHERE number = 3"))
        assert audit.verify(store.database).broken is None and audit.verify(store.database, known).broken == 3


def test_runs_are_found_compared_and_forgotten(store_url):
    with Store(store_url) as store:
        db = store.database
        first = entered(store, "20261124-0300-aaaa", [Placed("a", 0, 0), Placed("b", 0, 0)])
        keep(store, first, 1, seen("a", "drift", {"n": 1}), seen("b", "drift", {"n": 2}))
        second = entered(store, "20261124-0301-bbbb", [Placed("a", 0, 0), Placed("c", 0, 0)], created=later(60))
        keep(store, second, 61, seen("a", "compliant", {"n": 3}), seen("c", "failed"))
        assert runs.get(db, "last").id == second and runs.get(db, "20261124-0300").id == first
        for name in ("2026", "nothing", ""):
            with pytest.raises(InvalidInput):
                runs.get(db, name)
        wanted = [("a", "drift", "compliant"), ("b", "drift", ""), ("c", "", "failed")]
        assert list(runs.compared(db, first, second)) == wanted and not list(runs.compared(db, first, first))
        assert forget(db, later(30), later(90), "ann")["runs"] == 0  # it is still planned: somebody may be on it
        runs.move(db, first, "done", later(70))
        found = forget(db, later(30), later(90), "ann")
        # Facts of hosts as they are known now stay, and so does every look at them that is not too old.
        assert found["runs"] == 1 and [r.id for r in runs.listed(db, 9)] == [second]
        assert {h.host for h in hosts(db)} == {"a", "b", "c"}
        for row in hosts(db):
            assert not row.facts or store.document(row.facts, dict)
        assert audit.verify(db).broken is None


def test_crash_tests_are_kept_once_and_in_order(store_url):
    with Store(store_url) as store:
        new = Proof(how="crash-test", host="a", at="2026-11-24T03:00:00Z", outcome="dumped", kernel="6.1", state="s")
        old = Proof(how="crash-test", host="a", at="2026-11-23T03:00:00Z", outcome="lost", kernel="6.1", state="s")
        for proof in (new, old, new):
            keep_proof(store.database, proof)
        run = entered(store, "20261124-0300-aaaa", [Placed("a", 0, 0), Placed("b", 0, 0), Placed("c", 0, 1)])
        assert proofs_in(store, run, 0) == [old, new] and proofs_in(store, run, 1) == []
        assert (
            proofs_about(store, ["b", "a"]) == [old, new]
            and proofs_about(store, ["b"]) == proofs_about(store, []) == []
        )


def test_a_crash_test_counts_for_the_host_at_once(store_url):
    with Store(store_url) as store:
        run = entered(store, "20261124-0300-aaaa", [Placed("a", 0, 0), Placed("b", 0, 0)])
        keep(store, run, 1, seen("a", "proof expired", {}, kernel="6.1", desired="s", proof="proof expired"),
             seen("b", "changed", {}, kernel="6.1", desired="s", proof="never proven"))  # fmt: skip
        good = Proof(how="crash-test", at="2026-11-24T03:00:00Z", outcome="dumped", kernel="6.1", state="s")
        for proof in (
            msgspec.structs.replace(good, host="a"),
            msgspec.structs.replace(good, host="b", kernel="6.2"),
            msgspec.structs.replace(good, host="b", how="rehearsal"),
        ):
            keep_proof(store.database, proof)
        assert [(h.host, h.state, h.proof) for h in hosts(store.database)] == [
            ("a", "compliant", "proven"), ("b", "changed", "never proven")]  # fmt: skip
        keep_proof(store.database, msgspec.structs.replace(good, host="b"))
        assert [h.proof for h in hosts(store.database)] == ["proven", "proven"]
        keep_proof(store.database, msgspec.structs.replace(good, host="b", at="2026-11-25T03:00:00Z", outcome="lost"))
        keep_proof(store.database, msgspec.structs.replace(good, host="b", at="2026-11-24T09:00:00Z"))
        assert [h.proof for h in hosts(store.database)] == ["proven", "never proven"], "the last crash decides"


def test_the_tables_are_made_once_and_a_newer_store_is_left_alone(store_url):
    with Store(store_url) as store:
        assert version(store.database) == max(migrations()) and migrate(store.database, now()) == 0
        store.database.do(lambda s: s.all("INSERT INTO schema_version (version, at) VALUES (9999, 'x')"))
    with pytest.raises(StoreError, match="newer"):
        Store(store_url)


@pytest.mark.parametrize("start", [0, *migrations()])
def test_a_store_of_every_version_comes_to_this_one(store_url, start):
    database = open_database(store_url)
    assert migrate(database, now(), upto=start) == start
    if start:
        database.do(lambda s: s.all(
            "INSERT INTO run (id, kind, state, who, tool, policy, policy_hash, settings, created) "
            "VALUES ('r', 'sweep', 'done', 'ann', 'kdo', 'default', 'p', '{}', '2026-11-24T03:00:00.000Z')"))  # fmt: skip
    database.close()
    with Store(store_url) as store:
        assert version(store.database) == max(migrations())
        assert [r.id for r in runs.listed(store.database, 5)] == (["r"] if start else [])


def test_the_file_is_private_and_is_not_made_by_a_reader(tmp_path):
    path = tmp_path / "deep" / "store.db"
    with pytest.raises(InvalidInput, match="nothing is remembered"):
        Store(str(path), create=False)
    assert not path.parent.exists()
    with Store(str(path)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700


def test_a_password_in_the_url_is_refused():
    with pytest.raises(InvalidInput, match="password") as caught:
        Store("postgresql://kdo:geheim@127.0.0.1/kdo")
    assert "geheim" not in "".join("".join(p.lines()) for p in caught.value.problems)
    with pytest.raises(InvalidInput, match="no store"):
        Store("mysql://x/y")


def test_work_goes_on_when_the_server_was_restarted(postgres):
    url = postgres.database(f"restart{os.getpid()}")
    with Store(url) as store:
        run = entered(store, placed=[Placed("a", 0, 0)])
        postgres.stop("immediate")
        threading.Timer(1.0, postgres.start).start()
        keep(store, run, 1, seen("a", facts={"n": 1}))
        assert numbers(store.database, "").states == {"compliant": 1}


def test_what_was_written_survives_a_killed_process(tmp_path):
    """A worker that is killed right after a transaction has lost nothing of it, and the next one can write."""
    path = tmp_path / "store.db"
    text = (
        "import os,signal,sys\nfrom orchestrator.store.store import Store\n"
        "s=Store(sys.argv[1]); s.database.do(lambda t: t.all(\"INSERT INTO lease VALUES ('x','o','','a','b')\"))\n"
        "s.database.connection.execute('BEGIN IMMEDIATE')\n"
        "s.database.connection.execute(\"INSERT INTO lease VALUES ('y','o','','a','b')\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", text, str(path)], check=False).returncode == -9
    with Store(str(path)) as store:
        assert store.database.read("SELECT name FROM lease") == [("x",)]
        assert leases.take(store.database, ["y"], "me", T0) == {}
