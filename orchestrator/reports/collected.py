# SPDX-License-Identifier: Apache-2.0
"""Reports from what is on record: the store's hosts, or documents that other verbs have saved."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from orchestrator.checks.state import state_of
from orchestrator.documents.base import FORMAT_VERSION, major
from orchestrator.documents.decision import RuleTrace
from orchestrator.documents.facts import Facts
from orchestrator.documents.findings import Detail, Finding, Report, ReportHost
from orchestrator.documents.plan import HostPlan, Plan
from orchestrator.documents.verdict import Check, Verdict
from orchestrator.errors import InvalidInput
from orchestrator.planning.pipeline import Pipeline
from orchestrator.platforms.classify import classify
from orchestrator.store.hosts import FINE, STATES, HostRow, hosts
from orchestrator.store.store import Store

#: What a check says → how much it matters. What passes, or does not apply, is no finding.
LEVELS = {"fail": "error", "refused": "error", "unknown": "error", "warn": "warning", "waived": "note"}
_RULE = re.compile(r"(.*?) \((.+:[0-9]+:[0-9]+)\)\Z", re.DOTALL)
_ARCH = re.compile(r"[a-z0-9_]+(?= )")


def rule_of(text: str) -> tuple[str, str]:
    """Id of a rule and where it is written, from "id (file:line:col)"."""
    found = _RULE.match(text)
    return (found[1], found[2]) if found else (text, "")


def of_checks(checks: Iterable[Check], where: str) -> list[Finding]:
    """The checks that are findings. The rule that decided the host is the line that they are about."""
    return [
        Finding(id=c.id, level=LEVELS[c.verdict], what=c.title, why=c.evidence, fix=c.fix, where=where)
        for c in checks
        if c.verdict in LEVELS
    ]


def of_plan(plan: HostPlan) -> list[Finding]:
    """Refusals, and steps that are due."""
    _, where = rule_of(plan.rule)
    told = [
        Finding(id=r.id, level="error", what=r.what, why=r.why, fix=r.fix, where=r.where or where)
        for r in plan.refusals
    ]
    level = "note" if plan.status == "waived" else "warning"
    told += [
        Finding(id=f"due-{c.kind}", level=level, what=c.what, why=c.why, fix="kdo apply", where=where)
        for c in plan.changes
    ]
    if plan.reboot:
        told.append(
            Finding(
                id="due-reboot",
                level=level,
                what="a reboot is due",
                why=plan.reboot_why,
                fix="kdo apply --reboot",
                where=where,
            )
        )
    return told


def stored(
    store: Store, *, states: Sequence[str] = (), names: Sequence[str] = (), tag: str = "", whole: bool = False,
    pipeline: Pipeline | None = None,
) -> Iterator[ReportHost]:  # fmt: skip
    """Hosts of the store by name, few at a time; ``whole``: with what stands behind their states.

    ``pipeline``: of the policy that decided them; the trace of its rules is there for hosts that this very policy decided.
    """
    for row in hosts(store.database, states=states, names=names, tag=tag):
        yield of_row(store, row, whole, pipeline)


def of_row(store: Store, row: HostRow, whole: bool, pipeline: Pipeline | None = None) -> ReportHost:
    """One host of the store."""
    rule, where = rule_of(row.rule)
    verdict = store.document(row.verdict, Verdict) if row.verdict else None
    plan = store.document(row.plan, HostPlan) if row.plan else None
    told = of_checks(verdict.checks, where) if verdict is not None else []
    told += [f for f in of_plan(plan) if f not in told] if plan is not None else []
    # What the documents say was seen when the host last answered; its state may have become another one since.
    if row.state in ("failed", "unreachable", "proof expired"):
        level = "warning" if row.state == "proof expired" else "error"
        told.insert(
            0, Finding(id=row.state.replace(" ", "-"), level=level, what=STATES[row.state], why=row.why, where=where)
        )
    detail = None
    if whole:
        detail = _detail(plan, verdict)
        if row.facts:
            detail = _judged(detail, store.document(row.facts, Facts), row, pipeline)
    return ReportHost(
        host=row.host, state=row.state, why=row.why, arch=row.arch, hypervisor=row.hypervisor, platform=row.platform,
        strategy=row.strategy, rule=rule, where=where, kernel=row.kernel, proof=row.proof, tags=row.tags.split(),
        seen=row.seen, since=row.since, run=row.run, findings=told, detail=detail,
    )  # fmt: skip


def _judged(detail: Detail, facts: Facts, row: HostRow, pipeline: Pipeline | None) -> Detail:
    """With the signals of the platform, and the trace of the rules. Both follow from the facts, so they are not stored:
    the same facts and the same policy give the same again."""
    if pipeline is None or pipeline.policy.hash != row.policy_hash:
        platform, trace = classify(facts), list[RuleTrace]()
    else:
        judged = pipeline.explain(facts)
        platform, trace = judged.platform, judged.decision.trace
    return msgspec.structs.replace(
        detail, evidence=platform.evidence, contradictions=platform.contradictions, trace=trace
    )


def _detail(plan: HostPlan | None, verdict: Verdict | None) -> Detail:
    checks = verdict.checks if verdict is not None else []
    if plan is None:
        return Detail(checks=checks)
    # The steps are for the host side; people read what they are, why, and the difference.
    changes = [msgspec.structs.replace(c, step={}) for c in plan.changes]
    return Detail(layers=plan.layers, checks=checks, changes=changes, rows=plan.rows, notes=plan.notes)


def saved(text: bytes, name: str) -> list[ReportHost]:
    """Hosts of a saved document: a plan, what `kdo validate` or `kdo report` printed as JSON, or verdicts as JSON lines.

    Raises :class:`InvalidInput` for anything else.
    """
    try:
        try:
            data = msgspec.json.decode(text)
        except msgspec.DecodeError:
            lines = [line for line in text.splitlines() if line.strip()]
            if not lines:
                raise _unreadable(name, "it is empty") from None
            data = {"hosts": [msgspec.json.decode(line) for line in lines]}
        if isinstance(data, dict) and "hosts" not in data and "checks" in data:
            data = {"hosts": [data]}
        return _of_document(data, name)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise _unreadable(name, str(e)) from None


def _of_document(data: Any, name: str) -> list[ReportHost]:
    rows = data.get("hosts") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        raise _unreadable(name, "it has no list of hosts")
    version = str(data.get("format_version", FORMAT_VERSION))
    if major(version) != major(FORMAT_VERSION):
        raise InvalidInput(f"{name} has format version {version}", where=name, why=f"this kdo reads {FORMAT_VERSION}",
                           fix="use the kdo that wrote it")  # fmt: skip
    if data.get("kind") == "Report":
        return msgspec.convert(data, Report).hosts
    if data.get("kind") == "Plan":
        return [_of_plan(plan) for plan in msgspec.convert(data, Plan).hosts]
    if rows and not all(isinstance(r, dict) and "checks" in r for r in rows):
        raise _unreadable(name, "its hosts have no checks")
    return [_of_verdict(v) for v in msgspec.convert(rows, list[Verdict])]


def _unreadable(name: str, why: str) -> InvalidInput:
    fix = "give what `kdo plan -o FILE`, `kdo validate --format json` or `kdo report --format json` has written"
    return InvalidInput(f"{name} is no document that a report can be made from", where=name, why=why[:300], fix=fix)


def _of_plan(plan: HostPlan) -> ReportHost:
    state, why = state_of(plan, Verdict(status="pass"))
    rule, where = rule_of(plan.rule)
    arch, hypervisor = _platform(plan.platform)
    return ReportHost(
        host=plan.host, state=state, why=why, arch=arch, hypervisor=hypervisor, platform=plan.platform,
        strategy=plan.strategy, rule=rule, where=where, findings=of_plan(plan), detail=_detail(plan, None),
    )  # fmt: skip


def _of_verdict(v: Verdict) -> ReportHost:
    bad = [c for c in v.checks if c.verdict in ("fail", "refused", "unknown")]
    state = {"pass": "waived" if v.waived else "compliant", "fail": "failed"}.get(v.status, v.status or "failed")
    expired = state == "compliant" and v.proof is not None and v.proof.state == "proof expired"
    arch, hypervisor = _platform(v.platform)
    return ReportHost(
        host=v.host, state="proof expired" if expired else state,
        why="; ".join(f"{c.id}: {c.evidence}" for c in bad)[:500], arch=arch, hypervisor=hypervisor, platform=v.platform,
        strategy=v.strategy, kernel=v.kernel, proof=v.proof.state if v.proof is not None else "",
        findings=of_checks(v.checks, ""), detail=_detail(None, v),
    )  # fmt: skip


def _platform(line: str) -> tuple[str, str]:
    """Arch and hypervisor of "aarch64 hyperv guest (azure)"."""
    words = line.split()
    return (words[0], words[1]) if len(words) > 1 and _ARCH.match(line) else ("", "")


def needs_somebody(host: ReportHost) -> bool:
    """Whether a host is neither as it should be nor approved as it is."""
    return host.state not in FINE


def report(found: Iterable[ReportHost], source: str) -> Report:
    """The whole report."""
    rows = sorted(found, key=lambda h: h.host)
    seen = Counter(h.state for h in rows)
    order = [s for s in STATES if s in seen] + sorted(set(seen) - set(STATES))
    return Report(source=source, states={s: seen[s] for s in order}, hosts=rows)
