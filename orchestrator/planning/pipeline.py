# SPDX-License-Identifier: Apache-2.0
"""The pure middle of the flow in one object: Facts → Platform → Decision → Plan or Verdict."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.documents.decision import PLACES, SSH_KEY, Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.platform import Platform
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning.plan import Planner
from orchestrator.platforms.classify import classify
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import Policy


@dataclass(frozen=True)
class Judged:
    """A host with everything that was concluded about it."""

    facts: Facts
    platform: Platform
    decision: Decision


@contextmanager
def bulk() -> Iterator[None]:
    """For passes over very many hosts: no garbage collection until the end.

    Documents are trees without cycles, so reference counts free them; the collector finds nothing and costs half of
    the time that decoding takes (measured in benchmarks/decide.py).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Pipeline:
    """One policy, many hosts. Same facts, same policy: same bytes."""

    def __init__(self, policy: Policy, knowledge: Knowledge) -> None:
        self.policy = policy
        self.decider = Decider(policy, knowledge)
        self.planner = Planner(knowledge)

    def judge(self, facts: Facts) -> Judged:
        """Classify and decide."""
        platform = classify(facts)
        return Judged(facts, platform, self.decider.decide(facts, platform))

    def explain(self, facts: Facts) -> Judged:
        """The same, with the trace of every rule and clause."""
        platform = classify(facts)
        return Judged(facts, platform, self.decider.explained(facts, platform))

    def plan(self, facts: Facts) -> HostPlan:
        """The plan of one host."""
        judged = self.judge(facts)
        return self.planner.plan_host(judged.facts, judged.platform, judged.decision)

    def targets(self) -> list[str]:
        """Every dump target that some rule names; the probe looks at them."""
        settings = [*(r.settings for r in self.policy.rules), *(o.settings for o in self.policy.overrides)]
        wishes = [s.get("target", {}) for s in settings]
        # A path on an SSH server is also where the local tool keeps its records; one on another place is only there.
        found = {w.get("path", "") for w in wishes if w.keys().isdisjoint({*PLACES} - {"ssh"})}
        found |= {w.get(kind, "") for w in wishes for kind in ("filesystem", "raw", "ssh")}
        found |= {f"key:{w.get('key', SSH_KEY)}" for w in wishes if "ssh" in w}
        return sorted({"/var/crash", *found} - {""})
