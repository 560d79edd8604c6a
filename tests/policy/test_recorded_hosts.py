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


def test_shared_decisions_are_the_ones_made_afresh(tmp_path):
    """Every recorded host with every shipped policy, in two orders: what hosts share changes nothing."""
    import random

    import msgspec

    from orchestrator.documents.base import encode
    from orchestrator.platforms.classify import classify
    from orchestrator.policy.compose import shipped
    from orchestrator.policy.decide import Decider

    hosts = [facts_of(load_host(path), tmp_path / str(n)) for n, path in enumerate(HOSTS)]
    pairs = [(facts, classify(facts)) for facts in hosts]
    for name in shipped():
        policy = load(name, knowledge())
        fresh = {f.host: Decider(policy, knowledge()).explained(f, p) for f, p in pairs}
        shared = Decider(policy, knowledge())
        for seed in (1, 2):
            for facts, platform in random.Random(seed).sample(pairs, len(pairs)):
                expected = msgspec.structs.replace(fresh[facts.host], trace=[])
                assert encode(shared.decide(facts, platform)) == encode(expected), (name, facts.host)
