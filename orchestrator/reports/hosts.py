# SPDX-License-Identifier: Apache-2.0
"""Detection and explanation for people."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.crashkernel import format_size
from orchestrator.documents.decision import Against, Clause, Decision, Settings, Source
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.reports.text import line, table

_MARK = {True: "✓", False: "✗", None: "?"}


def detected(items: Sequence[tuple[Facts, Platform]]) -> None:
    """One line per host; with a single host also its evidence."""
    rows = [
        (
            f.host,
            p.arch,
            p.hypervisor + (f"/{p.variant}" if p.variant else ""),
            p.role,
            p.cloud or p.product or "-",
            p.confidential,
            f"{p.distribution or 'unknown'} {p.distribution_version}".strip(),
            f.kernel.release or "unknown",
            "ambiguous" if p.ambiguous else "",
        )
        for f, p in items
    ]
    table(("HOST", "ARCH", "HYPERVISOR", "ROLE", "CLOUD/PRODUCT", "CONFIDENTIAL", "SYSTEM", "KERNEL", ""), rows)
    if len(items) == 1:
        evidence(items[0][1])


def evidence(p: Platform) -> None:
    """Why the platform is taken for what it is."""
    line()
    line("evidence, the strongest first", "bold")
    table(("SOURCE", "SAYS", "SEEN", "NOTE"), [(e.source, e.says, e.value, e.note) for e in p.evidence], indent=2)
    for c in p.contradictions:
        line(f"  contradiction: {c.field} is {c.chosen}, but {c.against}: {c.why}", "yellow")
    for u in p.unseen:
        line(f"  not seen: {u}", "dim")


def _cite(sources: Sequence[Source], indent: int) -> None:
    for s in sources:
        line(" " * indent + f"source: {s.title}", "dim")


def clause_tree(clauses: Sequence[Clause], indent: int) -> None:
    """Every clause with the host's value and the answer."""
    for c in clauses:
        wanted = f" {c.wanted}" if c.wanted else ""
        actual = f"  (is: {c.actual})" if c.actual else ""
        line(" " * indent + f"{_MARK[c.result]} {c.field}{wanted}{actual}")
        clause_tree(c.parts, indent + 2)


def explained(facts: Facts, platform: Platform, decision: Decision, summary: str, signers: Sequence[str] = ()) -> None:
    """Everything behind one decision."""
    line(f"{facts.host}: {summary}", "bold")
    line(f"  {platform.distribution} {platform.distribution_version}, kernel {facts.kernel.release}")
    evidence(platform)
    line()
    for signer in signers:
        line(f"signed: {signer}", "dim")
    line("rules in order (policy, then knowledge)", "bold")
    for rule in decision.trace:
        verdict = "matches" if rule.matched else "cannot be told" if rule.matched is None else "does not match"
        line(f"  {_MARK[rule.matched]} {rule.id}: {verdict}  [{rule.where}]", "green" if rule.matched else "dim")
        clause_tree(rule.clauses, 6)
    line()
    if decision.refusals:
        line("decision: refused, nothing is touched", "bold red")
        for r in decision.refusals:
            line(f"  {r.what} [{r.id}]")
            line(f"    why: {r.why}")
            if r.fix:
                line(f"    fix: {r.fix}")
            _cite(r.sources, 4)
    elif not decision.settings.enabled:
        line(f"decision: no kdump is wanted  [rule {decision.rule}, {decision.rule_where}]", "bold yellow")
    else:
        line(
            f"decision: the cleanup relies on {decision.strategy}  [rule {decision.rule}, {decision.rule_where}]",
            "bold green",
        )
    line()
    line("the three layers, in the order in which they run", "bold")
    for layer in decision.layers:
        forced = " (set by the kernel itself)" if layer.forced else ""
        line(f"  {layer.name}: {layer.state}{forced}")
        line(f"    why: {layer.why}")
        _cite(layer.sources, 4)
    if decision.alternatives:
        line()
        line("what knowledge says of each", "bold")
        table(("STRATEGY", "VERDICT", "WHY"), [(a.strategy, a.verdict, a.why) for a in decision.alternatives], indent=2)
    if decision.refusals or not decision.settings.enabled:
        return
    if decision.overrides:
        line()
        line(f"overrides on top of the rule: {', '.join(decision.overrides)}")
    s = decision.settings
    line()
    line("settings that follow", "bold")
    reserved = s.reservation
    size = f" ({format_size(reserved.wanted)} on this host)" if reserved.wanted else ""
    line(f"  crashkernel={' crashkernel='.join(reserved.arguments)}{size}: {reserved.why}")
    _cite(reserved.sources, 4)
    line(f"  boot arguments: ensure {' '.join(s.boot_ensure) or 'none'}; remove {' '.join(s.boot_remove) or 'none'}")
    line(f"  capture kernel gets: {' '.join(s.capture_ensure)}")
    if s.capture_remove:
        line(f"  capture kernel must not get: {' '.join(s.capture_remove)}")
    if s.target.kind:
        line(f"  dump target: {' '.join(x for x in (s.target.kind, s.target.place, s.target.path) if x)}")
    for name, value in _others(s):
        line(f"  {name}: {value}")
    for name, value in s.sysctls.items():
        line(f"  {name} = {value}")
    for note in decision.notes:
        line(f"  note: {note}", "yellow")


def _others(s: Settings) -> list[tuple[str, str]]:
    """Settings that the policy gives, by their names there."""
    found = {
        "dump.collector": s.collector,
        "dump.level": s.dump_level,
        "dump.compression": s.dump_compression,
        "actions.final": s.final_action,
        "actions.failure": s.failure_action,
        "retention.keep": s.keep_dumps,
        "retention.minimum_free": None if s.minimum_free is None else format_size(s.minimum_free),
        "fadump": s.fadump,
        "early": s.early,
        "reboot": "" if s.reboot_allowed == "always" else " ".join([s.reboot_allowed, *s.reboot_windows]),
    }
    return [(name, str(value)) for name, value in found.items() if value not in (None, "")]


def compared(others: Sequence[Against]) -> None:
    """Why not the other strategies."""
    for other in others:
        line()
        line(f"why not {other.strategy}: {'it would work' if other.possible else 'not possible here'}", "bold")
        line(f"  why: {other.why}")
        if other.fix:
            line(f"  fix: {other.fix}")
        _cite(other.sources, 2)
        for d in other.differences:
            line(f"  would differ: {d.what}: {d.now} → {d.then}")
