# SPDX-License-Identifier: Apache-2.0
"""The shipped policy on every recorded host: outcome, strategy, knowledge rows and refusals as its data file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import default_path, load
from tests.platforms.hosttree import facts_of, load_host

HOSTS = sorted((Path(__file__).parents[1] / "hosts").glob("*.yaml"))
PIPELINE = Pipeline(load(default_path(), knowledge()), knowledge())


@pytest.mark.parametrize("path", HOSTS, ids=lambda p: p.stem)
def test_decision_of_a_recorded_host(path, tmp_path):
    host = load_host(path)
    facts = facts_of(host, tmp_path)
    decision = PIPELINE.judge(facts).decision
    got = {
        "outcome": decision.outcome,
        "strategy": decision.strategy or None,
        "knowledge": list(decision.knowledge),
        "refusals": [r.id for r in decision.refusals],
    }
    assert got == host["expect"]["decision"]
    plan = PIPELINE.plan(facts)
    assert (plan.status == "refused") >= (decision.outcome == "refuse") and not (plan.refusals and plan.changes)


def test_there_are_enough_of_them():
    assert len(HOSTS) >= 60
