# SPDX-License-Identifier: Apache-2.0
"""Runs over simulated hosts: waves, gates, pauses, lost workers, and that no finished host is ever done again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest

from orchestrator.checks.choice import PolicyChoice
from orchestrator.documents.plan import HostPlan, Rollout
from orchestrator.engine.begin import begin_apply, begin_sweep
from orchestrator.engine.campaign import Campaign
from orchestrator.engine.child import shard_of
from orchestrator.engine.executor import Ended, HereExecutor
from orchestrator.engine.gates import look_again
from orchestrator.engine.job import Job, Settings
from orchestrator.errors import InvalidInput
from orchestrator.store import audit, leases, runs
from orchestrator.store.hosts import Document, hosts, numbers
from orchestrator.store.store import Store, now
from tests.simulated import Fleet, bare, drifted, settled

POLICY = PolicyChoice()
PIPELINE = POLICY.pipeline()


@dataclass
class Quiet:
    """Notes what a run says."""

    notes: list[str] = field(default_factory=list)

    def wave(self, run, wave, tally):
        """Nothing to show."""

    def note(self, text):
        """Keep it."""
        self.notes.append(text)


def done_by(store: Store, url: str, worker: str = "w"):
    """Does a shard in this process, as the worker process would."""

    def do(job: Job) -> None:
        with Store(url) as mine:
            attempt = runs.claim(mine.database, job.run, job.shard, job.worker, now(), now())
            assert attempt
            shard_of(job, mine, attempt).perform()
            runs.end_shard(mine.database, job.run, job.shard, job.worker, "done", now())

    return HereExecutor(do)


def settings(**more) -> Settings:
    return Settings(**{"shard": 3, **more})


def planned(fleet: Fleet):
    """Each host's plan."""
    return {h: Document.of("plan", PIPELINE.plan(fleet.facts(h))) for h in fleet.names if h not in fleet.gone}


def applied(store: Store, url: str, fleet: Fleet, how: Settings, **more):
    """A whole run; returns it, its end and what was said."""
    run = begin_apply(store, PIPELINE.policy, fleet.inventory, how, planned(fleet).items(), "c" * 64)
    said = Quiet()
    state = Campaign(store, run, fleet.inventory, more.pop("executor", None) or done_by(store, url), said, **more).go()
    return runs.get(store.database, run.id), state, said


def names(count: int) -> list[str]:
    return [f"h{n:03d}" for n in range(count)]


def test_a_sweep_knows_every_host_and_a_dead_one_stops_nothing(store_url, monkeypatch):
    fleet = Fleet(names=names(7), gone={"h003"}).install(monkeypatch)
    fleet.done = {"h001": fleet.facts("h001")}
    with Store(store_url) as store:
        run = begin_sweep(store, PIPELINE.policy, fleet.inventory, settings())
        assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == "done"
        assert numbers(store.database, "").states == {"unreachable": 1, "drift": 6}
        row = next(hosts(store.database, names=["h000"]))
        assert (row.arch, row.hypervisor, row.policy_hash) == ("x86_64", "kvm", PIPELINE.policy.hash) and row.facts
        assert len(runs.shards(store.database, run.id)) == 3
        with pytest.raises(InvalidInput, match="done"):
            Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go()


def test_an_apply_changes_every_host_once_and_says_what_it_is_then(store_url, monkeypatch):
    fleet = Fleet(names=names(8)).install(monkeypatch)
    with Store(store_url) as store:
        run, state, _ = applied(store, store_url, fleet, settings(rollout=Rollout(waves=["1", "50%", "100%"])))
        assert state == run.state == "done"
        assert [len(x) for x in fleet.changed] == [1, 3, 3, 1]
        assert sorted([h for part in fleet.changed for h in part]) == fleet.names
        assert numbers(store.database, "").states == {"changed": 8} and runs.tally(store.database, run.id) == {
            "changed": 8
        }
        said = [e.what for e in audit.entries(store.database)]
        assert said[0] == "apply begun" and said.count("transaction committed") == 8 and said[-1] == "done"
        assert audit.verify(store.database).broken is None


def test_the_gate_closes_and_a_resume_goes_on_where_it_was(store_url, monkeypatch):
    fleet = Fleet(names=names(9), bad={"h001"}).install(monkeypatch)
    with Store(store_url) as store:
        how = settings(rollout=Rollout(waves=["3", "6", "100%"]))
        run, state, said = applied(store, store_url, fleet, how)
        assert state == "held" and "1 hosts have failed, allowed are 0" in run.why and run.why in said.notes[-1]
        assert [w.state for w in runs.waves(store.database, run.id)] == ["done", "held", "held"]
        assert runs.tally(store.database, run.id) == {"changed": 2, "undone": 1, "waiting": 6}
        again = Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet())
        assert again.go() == "held"  # nothing is better yet
        fleet.bad.clear()
        runs.reopen(store.database, run.id, ["undone"])
        assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == "done"
        assert runs.tally(store.database, run.id) == {"changed": 9}
        every = [h for part in fleet.changed for h in part]
        assert every.count("h001") == 2 and all(every.count(h) == 1 for h in fleet.names if h != "h001")


def test_a_refused_transaction_is_a_failure_and_no_refusal_of_the_policy(store_url, monkeypatch):
    fleet = Fleet(names=names(4), refusing={"h000"}).install(monkeypatch)
    with Store(store_url) as store:
        run, state, _ = applied(store, store_url, fleet, settings(rollout=Rollout(waves=["2", "100%"])))
        assert state == "held" and runs.tally(store.database, run.id) == {
            "transaction refused": 1,
            "changed": 1,
            "waiting": 2,
        }
        row = next(hosts(store.database, names=["h000"]))
        assert row.state == "drift" and "no room" in row.why


def test_what_cannot_be_reached_stops_a_run_only_where_the_policy_says_so(store_url, monkeypatch):
    fleet = Fleet(names=names(6)).install(monkeypatch)
    with Store(store_url) as store:
        plans = planned(fleet)
        fleet.gone = {"h000", "h001"}
        for limit, end in (("100%", "done"), ("1", "held")):
            fleet.done.clear()
            how = settings(rollout=Rollout(waves=["3"], max_unreachable=limit))
            run = begin_apply(store, PIPELINE.policy, fleet.inventory, how, plans.items(), "c" * 64)
            assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == end
            assert runs.tally(store.database, run.id)["unreachable"] == 2


def test_a_pause_a_window_and_a_soak(store_url, monkeypatch):
    fleet = Fleet(names=names(4)).install(monkeypatch)
    with Store(store_url) as store:
        how = settings(rollout=Rollout(waves=["1", "2", "100%"], pause="canary", windows=["Sat 02:00-05:00"]))
        closed, opened = datetime(2026, 11, 24, 3, 0, tzinfo=UTC), datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
        run, state, _ = applied(store, store_url, fleet, how, clock=lambda: closed)
        assert state == "held" and "outside the rollout's windows" in run.why and not fleet.changed
        again = {"executor": done_by(store, store_url), "watcher": Quiet(), "clock": lambda: opened}
        assert Campaign(store, run, fleet.inventory, **again).go() == "paused" and len(fleet.changed) == 1
        assert Campaign(store, run, fleet.inventory, **again).go() == "done" and len(fleet.changed) == 3


def test_somebody_orders_a_pause_and_somebody_a_cancel(store_url, monkeypatch):
    fleet = Fleet(names=names(9)).install(monkeypatch)
    with Store(store_url) as store:
        ordered = ["pausing"]

        def order(_names):
            run = runs.get(store.database, "last")
            if ordered:
                runs.move(store.database, run.id, ordered.pop(), now(), who="bob")

        fleet.before_transaction = order
        run, state, _ = applied(store, store_url, fleet, settings())
        assert state == "paused" and runs.tally(store.database, run.id) == {"changed": 3, "waiting": 6}
        ordered.append("cancelling")
        assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == "cancelled"
        assert runs.tally(store.database, run.id) == {"changed": 6, "cancelled": 3}
        with pytest.raises(InvalidInput, match="cancelled"):
            Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go()


def test_the_canary_is_proven_before_anybody_else_is_touched(store_url, monkeypatch):
    fleet = Fleet(names=names(4)).install(monkeypatch)
    with Store(store_url) as store:
        how = settings(rollout=Rollout(canary=["h002"]))
        run, state, _ = applied(
            store, store_url, fleet, how, gates=[lambda _run, wave: f"wave {wave.number}: no vmcore"]
        )
        assert state == "held" and run.why == "wave 0: no vmcore" and fleet.changed == [["h002"]]
        assert [(w.name, w.state) for w in runs.waves(store.database, run.id)] == [("canary", "done"), ("", "held")]


@pytest.fixture
def soaking(store_url, monkeypatch):
    """A run of two waves that waits between them; ``meanwhile`` happens while it waits."""
    fleet = Fleet(names=names(4)).install(monkeypatch)

    def run(meanwhile, resume="", retry=False, **rollout):
        with Store(store_url) as store:
            how = settings(rollout=Rollout(**{"waves": ["2", "100%"], "soak": 1, **rollout}))

            def go(sweep):
                return Campaign(store, sweep, fleet.inventory, done_by(store, store_url), Quiet()).go()

            def again(run, wave):
                meanwhile()
                return look_again(store, fleet.inventory, go, said.note, run, wave)

            said = Quiet()
            begun = (
                runs.get(store.database, resume)
                if resume
                else begin_apply(store, PIPELINE.policy, fleet.inventory, how, planned(fleet).items(), "c" * 64)
            )
            if retry:
                runs.reopen(store.database, begun.id, runs.BAD)
            state = Campaign(
                store, begun, fleet.inventory, done_by(store, store_url), said, [again], sleep=lambda _: None
            ).go()
            begun = runs.get(store.database, begun.id)
            return state, begun, runs.tally(store.database, begun.id), said.notes

    run.fleet = fleet
    return run


def test_a_soak_ends_with_a_second_look_that_finds_everything_well(soaking, store_url):
    state, _, tally, said = soaking(lambda: None)
    assert state == "done" and tally == {"changed": 4} and "looking again at 2 hosts" in said
    with Store(store_url) as store:
        assert [r.kind for r in runs.listed(store.database, 9)] == ["look", "apply"]
        assert runs.get(store.database, "last").kind == "apply", "the second look is a part of it"
        assert [h.host for h in runs.hosts_of(store.database, runs.listed(store.database, 1, "look")[0].id)] == [
            "h000",
            "h001",
        ]


@pytest.mark.parametrize(("how", "state"), [("drifts", "failed"), ("is gone", "unreachable")])
def test_a_host_that_does_not_stay_well_while_the_rollout_waits_closes_the_gate(soaking, how, state):
    fleet = soaking.fleet

    def meanwhile():
        if how == "drifts":
            fleet.done["h001"] = drifted("h001")
        else:
            fleet.gone.add("h001")

    end, run, tally, _ = soaking(meanwhile, max_unreachable="0")
    assert end == "held" and tally == {"changed": 1, state: 1, "waiting": 2}, (end, tally)
    assert "allowed are 0" in run.why
    fleet.gone.clear()
    end, _, tally, _ = soaking(lambda: None, resume=run.id, retry=True)
    assert end == "done" and tally == {"changed": 4}


def test_a_second_look_that_is_interrupted_interrupts_the_run(store_url, monkeypatch):
    fleet = Fleet(names=names(4)).install(monkeypatch)
    with Store(store_url) as store:
        how = settings(rollout=Rollout(waves=["2", "100%"], soak=1))
        again = partial(look_again, store, fleet.inventory, lambda _: "interrupted", lambda _: None)
        run, state, _ = applied(store, store_url, fleet, how, gates=[again], sleep=lambda _: None)
        assert state == run.state == "interrupted" and runs.tally(store.database, run.id) == {
            "changed": 2,
            "waiting": 2,
        }


def test_a_host_that_somebody_else_changes_is_left_alone(store_url, monkeypatch):
    fleet = Fleet(names=names(3)).install(monkeypatch)
    with Store(store_url) as store:
        leases.take(store.database, ["host:h001"], "elsewhere:1", datetime.now(UTC), "20261124-0000-ffff")
        run, state, _ = applied(store, store_url, fleet, settings())
        assert state == "done" and runs.tally(store.database, run.id) == {"busy": 1, "changed": 2}
        assert fleet.changed == [["h000", "h002"]]
        row = next(h for h in runs.hosts_of(store.database, run.id, states=["busy"]))
        assert "elsewhere:1 20261124-0000-ffff" in row.why
        assert store.database.read("SELECT name FROM lease") == [("host:h001",)]


def test_the_leases_of_a_dead_worker_of_the_same_run_are_waited_for(store_url, monkeypatch):
    """Its process was killed, and the shard is tried again at once: its hosts are not somebody else's."""
    monkeypatch.setattr(leases, "PATIENCE", 2)
    fleet = Fleet(names=names(3)).install(monkeypatch)
    with Store(store_url) as store:
        run = begin_apply(store, PIPELINE.policy, fleet.inventory, settings(), planned(fleet).items(), "c" * 64)
        leases.take(store.database, ["host:h001"], "dead:1", datetime.now(UTC), run.id)
        assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == "done"
        assert runs.tally(store.database, run.id) == {"changed": 3}


def test_a_change_that_nobody_lived_to_report_is_in_the_audit_trail(store_url, monkeypatch):
    fleet = Fleet(names=names(2)).install(monkeypatch)
    with Store(store_url) as store:
        run = begin_apply(store, PIPELINE.policy, fleet.inventory, settings(), planned(fleet).items(), "c" * 64)
        runs.begin_hosts(store.database, run.id, ["h001"])
        fleet.done["h001"] = settled("h001")
        assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == "done"
        said = {e.subject: e.what for e in audit.entries(store.database) if e.what.startswith("transaction")}
        assert said == {"h000": "transaction committed", "h001": "transaction found committed"}
        assert runs.tally(store.database, run.id) == {"changed": 2} and fleet.changed == [["h000"]]


def test_plans_are_kept_few_at_a_time(store_url, monkeypatch):
    monkeypatch.setattr("orchestrator.engine.begin._PLANS", 2)
    fleet = Fleet(names=names(5)).install(monkeypatch)
    with Store(store_url) as store:
        run = begin_apply(store, PIPELINE.policy, fleet.inventory, settings(), planned(fleet).items(), "c" * 64)
        rows = list(runs.hosts_of(store.database, run.id, shard=0))
        assert [h.host for h in rows] == ["h000", "h001", "h002"] and run.hosts == 5
        assert all(store.document(h.plan, HostPlan).host == h.host for h in rows)


def test_reboots_in_small_numbers(store_url, monkeypatch):
    fleet = Fleet(make=bare, names=names(5)).install(monkeypatch)
    with Store(store_url) as store:
        how = settings(shard=5, reboot=True, trial=False, parallel=1, rollout=Rollout(reboots=2))
        seen = []
        monkeypatch.setattr("orchestrator.fleet.session.reboot_hosts",
                            lambda _w, hosts, **_: (seen.append(list(hosts)), dict.fromkeys(hosts, ""))[1])  # fmt: skip
        _, state, _ = applied(store, store_url, fleet, how)
        assert state == "done" and [len(x) for x in seen] == [2, 2, 1]
        without = Fleet(make=bare, names=names(2)).install(monkeypatch)
        run, _, _ = applied(store, store_url, without, settings())
        assert runs.tally(store.database, run.id) == {"pending reboot": 2}


@dataclass
class Unlucky:
    """Workers of which many are killed: before they begin, after some transactions, or after all of them."""

    inner: HereExecutor
    luck: random.Random
    fleet: Fleet
    killed: int = 0
    ended: list[Ended] = field(default_factory=list)

    def room(self):
        return self.inner.room()

    def busy(self):
        return self.inner.busy() + len(self.ended)

    def submit(self, job):
        self.fleet.before_transaction = None
        way = self.luck.choice(["fine", "fine", "before", "amid", "after"])
        if way != "fine" and self.killed < 200:

            def die(_names):
                raise SystemExit

            if way == "amid":
                self.fleet.before_transaction = die
            try:
                if way == "before":
                    raise SystemExit
                if way == "after":  # the host is changed, and nobody hears of it
                    real, self.fleet.transact_result = self.fleet.transact, None

                    def deaf(*a, **k):
                        real(*a, **k)
                        raise SystemExit

                    from orchestrator.fleet import session

                    session.transact = deaf
                self.inner.submit(job)
            except SystemExit:
                self.killed += 1
                self.inner._ended.clear()
                self.ended.append(Ended(job.shard, False, "killed by signal 9"))
                return
            finally:
                from orchestrator.fleet import session

                session.transact = self.fleet.transact
        else:
            self.inner.submit(job)

    def poll(self, seconds):
        out, self.ended = self.ended, []
        return out + self.inner.poll(seconds)

    def stop(self):
        """Nothing is under way."""


@pytest.mark.parametrize("seed", range(4))
def test_killed_workers_lose_nothing_and_double_nothing(store_url, monkeypatch, seed):
    """A worker dies before, amid or after its transactions: every host is changed exactly once, and is on record as changed."""
    fleet = Fleet(names=names(30)).install(monkeypatch)
    monkeypatch.setattr("orchestrator.engine.campaign._ATTEMPTS", 99)
    with Store(store_url) as store:
        unlucky = Unlucky(done_by(store, store_url), random.Random(seed), fleet)
        run, state, said = applied(
            store, store_url, fleet, settings(rollout=Rollout(waves=["3", "100%"])), executor=unlucky
        )
        assert unlucky.killed and len(said.notes) == unlucky.killed
        assert state == "done" and runs.tally(store.database, run.id) == {"changed": 30}
        every = [h for part in fleet.changed for h in part]
        assert sorted(every) == fleet.names
        assert numbers(store.database, "").states == {"changed": 30}


def test_a_shard_that_always_dies_is_given_up_and_says_why(store_url, monkeypatch):
    fleet = Fleet(names=names(6)).install(monkeypatch)

    class Deadly(HereExecutor):
        def submit(self, job):
            if job.shard == 0:
                self._ended.append(Ended(0, False, "killed by signal 9"))
            else:
                super().submit(job)

    with Store(store_url) as store:
        run, state, said = applied(store, store_url, fleet, settings(), executor=Deadly(done_by(store, store_url).do))
        assert state == "done" and runs.tally(store.database, run.id) == {"failed": 3, "changed": 3}
        assert (
            len(said.notes) == 4
            and "killed by signal 9" in next(runs.hosts_of(store.database, run.id, states=["failed"])).why
        )


def test_a_worker_with_another_policy_touches_nothing(tmp_path, monkeypatch):
    fleet = Fleet(names=names(2)).install(monkeypatch)
    with Store(str(tmp_path / "s.db")) as store:
        run = begin_sweep(store, PIPELINE.policy, fleet.inventory, settings())
        store.database.do(lambda s: s.all("UPDATE run SET policy_hash = 'other'"))
        with pytest.raises(InvalidInput, match="another one"):
            shard_of(Job(store=store.url, run=run.id, shard=0, worker="w"), store, 1)


def test_a_host_that_moved_on_is_stale_and_the_others_go_on(store_url, monkeypatch):
    fleet = Fleet(names=names(3)).install(monkeypatch)
    with Store(store_url) as store:
        plans = planned(fleet)
        fleet.done["h001"] = bare("h001")
        run = begin_apply(store, PIPELINE.policy, fleet.inventory, settings(), plans.items(), "c" * 64)
        assert Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go() == "done"
        assert runs.tally(store.database, run.id) == {"changed": 2, "stale": 1} and fleet.changed == [["h000", "h002"]]


def test_the_state_before_is_on_record(store_url, monkeypatch):
    fleet = Fleet(make=drifted, names=names(2)).install(monkeypatch)
    with Store(store_url) as store:
        run = begin_sweep(store, PIPELINE.policy, fleet.inventory, settings())
        Campaign(store, run, fleet.inventory, done_by(store, store_url), Quiet()).go()
        run, _, _ = applied(store, store_url, fleet, settings())
        assert {h.before for h in runs.hosts_of(store.database, run.id)} == {"drift"}
        assert msgspec.json.decode(msgspec.json.encode(run.settings))["engine"] == "local"
