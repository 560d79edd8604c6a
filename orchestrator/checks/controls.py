# SPDX-License-Identifier: Apache-2.0
"""Hosts held against the controls of baselines. Pure: facts, policy, waivers and proofs are given.

*enabled* is judged by the policy of the site, since only that says what correct is. *disabled* is judged by the shipped policy
hardened-disabled: what a baseline demands does not depend on what the site wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.checks.waive import BAD, lapsed, said, verdict_judged
from orchestrator.documents.controls import ControlHost, ControlReport, ControlResult
from orchestrator.documents.facts import Facts
from orchestrator.documents.verdict import Check, Verdict
from orchestrator.knowledge.controls import Control
from orchestrator.planning.pipeline import Judged, Pipeline
from orchestrator.policy.context import Context
from orchestrator.policy.load import load
from orchestrator.policy.waivers import Waivers

RESULTS = ("pass", "fail", "waived", "not applicable", "unknown")
_OFF = "hardened-disabled"
_INSIDE = ("container", "wsl", "uml")


@dataclass(frozen=True)
class Answer:
    """What a host comes to under one control."""

    result: str
    why: str = ""
    fix: str = ""
    failing: tuple[str, ...] = ()


@dataclass
class Looked:
    """A host, judged at most once by each of the two policies. ``proof``: what its crash tests say (state, reason)."""

    facts: Facts
    bench: Bench
    proof: tuple[str, str]
    _kept: dict[str, tuple[Judged, Verdict]] = field(default_factory=dict)

    def by(self, pipeline: Pipeline) -> tuple[Judged, Verdict]:
        """Judged by one policy."""
        key = pipeline.policy.hash
        if key not in self._kept:
            judged = pipeline.judge(self.facts)
            waivers = self.bench.waivers if pipeline is self.bench.own else self.bench.waivers_of_checks
            self._kept[key] = (judged, verdict_judged(pipeline, judged, waivers))
        return self._kept[key]


class Bench:
    """Policies, waivers and proofs that hosts are held against. ``proofs``: host → (state, reason) of its crash tests."""

    def __init__(self, own: Pipeline, waivers: Waivers, proofs: Mapping[str, tuple[str, str]] | None = None) -> None:
        known = own.decider.knowledge
        self.own, self.off = own, Pipeline(load(_OFF, known), known)
        self.waivers = waivers
        # Rules of the site's policy are none of the other one's.
        self.waivers_of_checks = Waivers([w for w in waivers.all if w.check], waivers.today)
        self.proofs = dict(proofs or {})

    def look(self, facts: Facts) -> Looked:
        """A host that is to be judged."""
        return Looked(
            facts, self, self.proofs.get(facts.host, ("never proven", "no crash test of this host is on record"))
        )

    def judge(self, control: Control, host: Looked) -> Answer:
        """One host under one control, with the waiver for it if there is one."""
        answer = _JUDGES[control.demands](self, control, host)
        if answer.result not in ("fail", "unknown"):
            return answer
        judged, _ = host.by(self.own)
        context = Context(host.facts, judged.platform, self.own.decider.knowledge.features)
        waiver = self.waivers.find(context, controls=[control.id])
        if waiver is None:
            return answer
        if not self.waivers.counts(waiver):
            return Answer(answer.result, f"{answer.why}; {lapsed(waiver)}", answer.fix, answer.failing)
        return Answer("waived", f"{said(waiver)}; {answer.why}", "", answer.failing)

    def report(
        self,
        controls: Sequence[Control],
        found: Iterable[tuple[Facts, str]],
        source: str,
        silent: Mapping[str, str] | None = None,
    ) -> ControlReport:
        """All hosts under these controls, by name. ``found``: facts, and when they were read; ``silent``: host → why it has none."""
        rows: dict[str, list[ControlHost]] = {c.id: [] for c in controls}
        for facts, seen in found:
            host = self.look(facts)
            platform = host.by(self.own)[0].platform
            about = {"arch": platform.arch, "hypervisor": platform.hypervisor}
            for control in controls:
                a = self.judge(control, host)
                row = ControlHost(host=facts.host, result=a.result, why=a.why, fix=a.fix, failing=list(a.failing), seen=seen,
                                  tags=list(facts.inventory.tags), **about)  # fmt: skip
                rows[control.id].append(row)
        for name, why in (silent or {}).items():
            for control in controls:
                rows[control.id].append(
                    ControlHost(host=name, result="unknown", why=why, fix="make it answer: kdo sweep")
                )
        made = [_result(c, sorted(rows[c.id], key=lambda h: h.host)) for c in controls]
        policy = self.own.policy
        return ControlReport(source=source, policy=policy.name, policy_hash=policy.hash, controls=made)


def _result(control: Control, hosts: list[ControlHost]) -> ControlResult:
    results = [h.result for h in hosts]
    rules = list(dict.fromkeys(f"{b.by}: {b.rule}" for b in control.baselines))
    return ControlResult(
        id=control.id, title=control.title, demands=control.demands, rules=rules, hosts=hosts,
        contradicts=[c.id for c in control.contradicts], counts={r: results.count(r) for r in RESULTS},
    )  # fmt: skip


def _of_checks(control: Control, checks: Iterable[Check]) -> Answer:
    """All of the control's checks must hold; what is waived is waived."""
    mine = [c for c in checks if c.id in control.checks]
    bad = [c for c in mine if c.verdict in BAD]
    if bad:
        result = "fail" if any(c.verdict == "fail" for c in bad) else "unknown"
        fix = next((c.fix for c in bad if c.fix), control.fix)
        return Answer(result, "; ".join(f"{c.id}: {c.evidence}" for c in bad), fix, tuple(c.id for c in bad))
    if waived := [c for c in mine if c.verdict == "waived"]:
        return Answer("waived", "; ".join(f"{c.id}: {c.evidence}" for c in waived), "", tuple(c.id for c in waived))
    warned = [c for c in mine if c.verdict == "warn"]
    return Answer("pass", "; ".join(f"{c.id}: {c.evidence}" for c in warned))


def _inside(judged: Judged) -> Answer | None:
    """The answer where the host has no kernel of its own."""
    if judged.platform.role not in _INSIDE:
        return None
    return Answer("not applicable", f"this is a {judged.platform.role}: the kernel belongs to the machine below")


def _judged(control: Control, judged: Judged, verdict: Verdict) -> Answer | None:
    """The answer where the host's checks are not even asked."""
    if (inside := _inside(judged)) is not None:
        return inside
    if verdict.status == "unsupported":
        return Answer(
            "unknown", verdict.checks[0].title if verdict.checks else "not supported", control.fix, ("unsupported",)
        )
    refused = [c for c in verdict.checks if c.verdict == "refused"]
    if refused:
        result = "unknown" if judged.platform.ambiguous else "fail"
        why = "; ".join(f"{c.title}: {c.evidence}" for c in refused)
        return Answer(result, why, next((c.fix for c in refused if c.fix), control.fix), tuple(c.id for c in refused))
    if judged.decision.refusals:  # all of them waived
        return Answer("waived", "; ".join(c.evidence for c in verdict.checks), "", tuple(c.id for c in verdict.checks))
    return None


def _enabled(bench: Bench, control: Control, host: Looked) -> Answer:
    judged, verdict = host.by(bench.own)
    if (answer := _judged(control, judged, verdict)) is not None:
        return answer
    if not judged.decision.settings.enabled:
        why = f"the policy wants no kdump on this host (rule {judged.decision.rule})"
        return Answer("fail", why, "change the policy, or waive the control", (judged.decision.rule,))
    if control.proof:
        state, why = host.proof
        return Answer("pass", why) if state == "proven" else Answer("fail", f"{state}: {why}", control.fix, ("proof",))
    return _of_checks(control, verdict.checks)


def _disabled(bench: Bench, control: Control, host: Looked) -> Answer:
    judged, verdict = host.by(bench.off)
    if (answer := _judged(control, judged, verdict)) is not None:
        return answer
    answer = _of_checks(control, verdict.checks)
    mine = host.by(bench.own)[0].decision
    if answer.result == "fail" and mine.settings.enabled and not mine.refusals:
        why = f"the policy wants kdump on this host (rule {mine.rule}); {answer.why}"
        return Answer("fail", why, control.fix, answer.failing)
    return answer


def _locked(bench: Bench, control: Control, host: Looked) -> Answer:
    judged, _ = host.by(bench.own)
    kexec = host.facts.kexec
    if (inside := _inside(judged)) is not None:
        return inside
    if kexec.load_disabled is None:
        if kexec.supported is False:
            return Answer("not applicable", "this kernel has no kexec, so there is no such sysctl")
        return Answer(
            "unknown",
            "kernel.kexec_load_disabled could not be read",
            "look as root: kdo sweep -b",
            ("kexec_load_disabled",),
        )
    if kexec.load_disabled == 1:
        kept = (
            "a capture kernel was loaded before, and stays usable"
            if kexec.crash_loaded
            else "no capture kernel is loaded, and none can be"
        )
        return Answer("pass", f"kernel.kexec_load_disabled is 1; {kept}")
    return Answer("fail", "kernel.kexec_load_disabled is 0", control.fix, ("kexec_load_disabled",))


def _absent(bench: Bench, control: Control, host: Looked) -> Answer:
    judged, _ = host.by(bench.own)
    supported = host.facts.kexec.supported
    if (inside := _inside(judged)) is not None:
        return inside
    if supported is None:
        return Answer(
            "unknown", "it could not be seen whether the kernel has kexec", "look as root: kdo sweep -b", ("kexec",)
        )
    if supported:
        return Answer("fail", "the kernel can load a capture kernel", control.fix, ("kexec",))
    return Answer("pass", "the kernel has no kexec")


_JUDGES = {"enabled": _enabled, "disabled": _disabled, "locked": _locked, "absent": _absent}
