# SPDX-License-Identifier: Apache-2.0
"""The crash proof between the canary and the rest: who is crashed, who must agree, and what a lost dump means."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import click
import pytest

from orchestrator.cli import gate as gates
from orchestrator.documents.plan import Rollout
from orchestrator.documents.proof import Proof
from orchestrator.engine.begin import begin_apply
from orchestrator.engine.campaign import Campaign
from orchestrator.errors import KdoError
from orchestrator.store import leases, runs
from orchestrator.store.hosts import hosts, keep_proof
from orchestrator.store.store import Store, now
from tests.engine.test_campaign import PIPELINE, Quiet, done_by, names, planned, settings
from tests.simulated import Fleet


@dataclass
class Rollouts:
    """A run over four simulated hosts whose canary is proven by a crash of which the test decides what comes."""

    url: str
    fleet: Fleet
    outcome: str = "dumped"
    typed: object = ""
    crashed: list[str] = field(default_factory=list)
    keep: bool = True

    def crash(self, store, _inventory, run, host):
        """What Ansible and the host would do."""
        self.crashed.append(host)
        if self.outcome == "cut short":
            raise KeyboardInterrupt
        if self.outcome == "busy":
            with leases.holding(store, f"host:{host}", "somebody", "x"):
                raise KdoError("somebody else works on it")
        proof = self.proof(store, host)
        if self.keep:
            keep_proof(store.database, proof)
        return proof

    def proof(self, store, host):
        """A crash test of a host as it is on record."""
        row = next(hosts(store.database, names=[host]))
        return Proof(how="crash-test", host=host, at=now(), outcome=self.outcome, kernel=row.kernel, state=row.desired,
                     what="no new dump" if self.outcome == "lost" else "")  # fmt: skip

    def go(self, consent="", resume=False, **rollout):
        """Begin, or resume; returns the state and why."""
        with Store(self.url) as store:
            how = settings(prove=True, rollout=Rollout(**{"waves": ["2", "100%"], "max_fail": "1", **rollout}))
            plans = {} if resume else planned(self.fleet)
            run = (
                runs.get(store.database, "last")
                if resume
                else begin_apply(store, PIPELINE.policy, self.fleet.inventory, how, plans.items(), "c" * 64)
            )
            gate = partial(gates.prove_canary, store, self.fleet.inventory, consent)
            state = Campaign(store, run, self.fleet.inventory, done_by(store, self.url), Quiet(), [gate]).go()
            return state, runs.get(store.database, run.id).why


@pytest.fixture
def rollouts(monkeypatch, tmp_path):
    made = Rollouts(str(tmp_path / "s.db"), Fleet(names=names(4)).install(monkeypatch))
    monkeypatch.setattr(gates, "_crash", made.crash)

    def prompt(*_, **__):
        if isinstance(made.typed, type):
            raise made.typed
        return made.typed

    monkeypatch.setattr(click, "prompt", prompt)
    return made


def test_a_canary_that_dumps_opens_the_gate(rollouts):
    assert rollouts.go(consent="h001") == ("done", "")
    assert rollouts.crashed == ["h001"] and len(rollouts.fleet.changed) == 2
    with Store(rollouts.url) as store:
        assert {h.host: h.proof for h in hosts(store.database)}["h001"] == "proven", "status knows of it at once"


def test_a_lost_dump_keeps_everybody_else_as_they_are_until_a_crash_leaves_one(rollouts):
    rollouts.typed, rollouts.outcome = "h000", "lost"
    assert rollouts.go() == ("held", "the canary h000 left no vmcore: no new dump")
    assert rollouts.crashed == ["h000"] and rollouts.fleet.changed == [["h000", "h001"]]
    assert rollouts.go(resume=True) == ("held", "the canary h000 left no vmcore: no new dump"), "resuming asks again"
    rollouts.outcome = "dumped"
    assert rollouts.go(resume=True) == ("done", "") and rollouts.crashed == ["h000"] * 3


def test_a_run_that_was_paused_behind_its_canary_is_still_proven_first_and_once(rollouts):
    rollouts.typed, rollouts.outcome = "h000", "cut short"
    assert rollouts.go()[0] == "interrupted", "Ctrl-C while the host dumps"
    rollouts.outcome = "dumped"
    with Store(rollouts.url) as store:
        keep_proof(store.database, rollouts.proof(store, "h001"))  # kdo crash-test h001
    assert rollouts.go(resume=True) == ("done", "") and rollouts.crashed == ["h000"], (
        "what was proven is not crashed again"
    )


def test_a_crash_before_the_change_proves_nothing(rollouts):
    rollouts.typed = ""
    assert rollouts.go()[0] == "held"
    with Store(rollouts.url) as store:
        old = rollouts.proof(store, "h001")
        for other in ({"at": "2026-01-01T00:00:00Z"}, {"kernel": "another"}, {"state": "another"}, {"outcome": "lost"}):
            keep_proof(store.database, Proof(**{**{k: getattr(old, k) for k in old.__struct_fields__}, **other}))
    assert rollouts.go(resume=True) == ("held", "nobody consented to the crash that was to prove the canary")


def test_with_a_pause_behind_the_canary_it_is_proven_before_the_pause(rollouts):
    assert rollouts.go(consent="h000", pause="canary")[0] == "paused" and rollouts.crashed == ["h000"]
    assert rollouts.go(resume=True)[0] == "done" and rollouts.crashed == ["h000"]


@pytest.mark.parametrize("typed", ["yes", "", click.Abort])
def test_nobody_is_crashed_without_consent(rollouts, typed):
    rollouts.typed = typed
    state, why = rollouts.go()
    assert state == "held" and "nobody consented" in why and not rollouts.crashed


def test_only_a_host_of_the_canary_that_is_well_is_crashed(rollouts):
    state, why = rollouts.go(consent="h003")
    assert state == "held" and "h003" in why and not rollouts.crashed


def test_a_canary_that_failed_is_not_crashed_too(rollouts):
    rollouts.fleet.bad, rollouts.typed = {"h000"}, "h001"
    assert rollouts.go()[0] == "done" and rollouts.crashed == ["h001"]


def test_a_host_that_may_not_be_crashed_holds_the_run(rollouts):
    rollouts.outcome = "busy"
    state, why = rollouts.go(consent="h000")
    assert state == "held" and "could not be proven" in why and "somebody else works on it" in why
