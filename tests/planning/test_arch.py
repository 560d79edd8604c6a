# SPDX-License-Identifier: Apache-2.0
"""Families that are explained and never touched: why, and what to do there."""

from __future__ import annotations

import pytest

from orchestrator.knowledge.load import knowledge
from orchestrator.planning.plan import Planner
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load
from tests.builders import debian, platform

K = knowledge()


@pytest.mark.parametrize(
    ("family", "why", "fix"),
    [
        ("arch", "no kdump of its own", "reset_devices"),
        ("sonic", "configuration database", "config kdump enable"),
        ("unknown", "not known which tools", "adding-a-distribution"),
    ],
)
def test_why_and_what_to_do(family, why, fix):
    facts, where = debian(), platform(family=family, distribution=family)
    decision = Decider(load(default_path(), K), K).decide(facts, where)
    p = Planner(K).plan_host(facts, where, decision)
    (refusal,) = p.refusals
    assert (p.status, p.changes) == ("unsupported", []) and family in refusal.what
    assert why in refusal.why and fix in refusal.fix and p.strategy == decision.strategy
    assert family in K.unsupported  # readers that only want the names


def test_what_is_planned_for_is_not_in_the_table():
    assert set(K.unsupported) == {"arch", "sonic", "unknown"}
    assert set(Planner(K).families) == {"debian", "redhat", "suse", "azurelinux", "ostree"}
