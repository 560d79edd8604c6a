# SPDX-License-Identifier: Apache-2.0
"""Facts and Decision → Verdict."""

from __future__ import annotations

import msgspec

from orchestrator import bootloaders
from orchestrator.checks import armed, disabled, targets, tools  # noqa: F401  (they register their checks)
from orchestrator.checks.base import Subject, run_all
from orchestrator.documents.base import digest
from orchestrator.documents.decision import Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredState
from orchestrator.documents.platform import Platform
from orchestrator.documents.verdict import Check, Verdict
from orchestrator.planning.plan import Planner, summary
from orchestrator.policy.decide import ram_of


def verdict(planner: Planner, facts: Facts, platform: Platform, decision: Decision) -> Verdict:
    """Hold one host against its decision. A host that is refused or not supported is not judged, only named."""
    line = summary(platform)
    if decision.refusals:
        checks = [Check(id=r.id, title=r.what, verdict="refused", evidence=r.why, fix=r.fix) for r in decision.refusals]
        return Verdict(host=facts.host, status="refused", platform=line, checks=checks)
    boot = bootloaders.next_boot(platform.boot_stack, facts)
    kept, _ = planner.keep_reservation(decision, facts, boot)
    family = planner.families.get(platform.family)
    if family is None:
        note = Check(
            id="unsupported",
            title=f"family {platform.family} is not supported yet",
            verdict="skip",
            evidence="decided and explained only",
        )
        return Verdict(host=facts.host, status="unsupported", platform=line, strategy=decision.strategy, checks=[note])
    desired = planner.desired(kept, facts, platform, boot)
    if not desired.supported:
        note = Check(id="unsupported", title=desired.why_not, verdict="skip", evidence="decided and explained only")
        return Verdict(host=facts.host, status="unsupported", platform=line, strategy=decision.strategy, checks=[note])
    capture = family.capture(facts, platform, boot)
    checks = run_all(Subject(facts, platform, kept, boot, capture, desired, ram_of(facts)))
    bad = any(c.verdict in ("fail", "unknown") for c in checks)
    return Verdict(
        host=facts.host,
        status="fail" if bad else "pass",
        platform=line,
        strategy=decision.strategy,
        kernel=facts.kernel.release,
        state=state_hash(desired),
        checks=checks,
    )


def state_hash(desired: DesiredState) -> str:
    """One hash for all that is wanted of a host; words for people and a login that is still missing do not count."""
    files = [msgspec.structs.replace(file, why="") for file in desired.files]
    return digest(msgspec.structs.replace(desired, files=files, notes=[], login={}))
