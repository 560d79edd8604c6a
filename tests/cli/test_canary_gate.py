# SPDX-License-Identifier: Apache-2.0
"""The crash proof between the canary and the rest: who is crashed, who must agree, and what a lost dump means."""

from __future__ import annotations

import click
import pytest

from orchestrator.checks.choice import PolicyChoice
from orchestrator.cli import gate as gates
from orchestrator.cli.common import Hosts
from orchestrator.documents.plan import Rollout
from orchestrator.engine.begin import begin_apply
from orchestrator.engine.campaign import Campaign
from orchestrator.errors import InvalidInput
from orchestrator.store import runs
from orchestrator.store.store import Store
from tests.engine.test_campaign import PIPELINE, Quiet, done_by, names, planned, settings
from tests.simulated import Fleet


@pytest.fixture
def rollout(monkeypatch, tmp_path):
    """A run over four simulated hosts whose canary is proven by a crash that the test decides."""
    crashed = []

    def run(consent="", typed="", lost="", bad=()):
        fleet = Fleet(names=names(4), bad=set(bad)).install(monkeypatch)
        monkeypatch.setattr(gates, "_crash", lambda _s, _h, _c, host: (crashed.append(host), lost)[1])
        monkeypatch.setattr(click, "prompt", lambda *_a, **_k: typed)
        url = str(tmp_path / "s.db")
        with Store(url) as store:
            how = settings(rollout=Rollout(waves=["2", "100%"], max_fail="1"))
            run = begin_apply(store, PIPELINE.policy, fleet.inventory, how, planned(fleet).items(), "c" * 64)
            hosts = Hosts(("x,",), "", (), 1, False)
            gate = gates.canary_gate(store, hosts, PolicyChoice(), fleet.inventory, consent)
            state = Campaign(store, run, fleet.inventory, done_by(store, url), Quiet(), gate).go()
            return state, runs.get(store.database, run.id).why, crashed, fleet.changed

    return run


def test_a_canary_that_dumps_opens_the_gate(rollout):
    state, _, crashed, changed = rollout(consent="h001")
    assert state == "done" and crashed == ["h001"] and len(changed) == 2


def test_a_lost_dump_keeps_everybody_else_as_they_are(rollout):
    state, why, crashed, changed = rollout(typed="h000", lost="the canary h000 left no vmcore")
    assert (state, why, crashed, changed) == ("held", "the canary h000 left no vmcore", ["h000"], [["h000", "h001"]])


def test_nobody_is_crashed_without_consent(rollout):
    state, why, crashed, _ = rollout(typed="yes")
    assert state == "held" and "nobody consented" in why and not crashed


def test_only_a_host_of_the_canary_that_is_well_is_crashed(rollout):
    state, why, crashed, _ = rollout(consent="h003")
    assert state == "held" and "h003" in why and not crashed
    with pytest.raises(InvalidInput, match="no host of this inventory"):
        rollout(consent="elsewhere")


def test_a_canary_that_failed_is_not_crashed_too(rollout):
    state, _, crashed, _ = rollout(typed="h001", bad=["h000"])
    assert state == "done" and crashed == ["h001"]
