# SPDX-License-Identifier: Apache-2.0
"""Plans, outcomes and verdicts for people. Hosts with the same changes are shown once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.documents.base import digest
from orchestrator.documents.plan import HostPlan, Plan
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.reports.text import diff, line, some, table

_PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk)-\S+ AAAA\S+ of /")  # what a step answers that has made a key

_STYLE = {
    "pass": "green",
    "fail": "bold red",
    "warn": "yellow",
    "unknown": "yellow",
    "skip": "dim",
    "refused": "red",
    "waived": "yellow",
}


def _key(h: HostPlan) -> str:
    """Plans with the same key read the same."""
    shown = [(c.what, c.why, c.diff) for c in h.changes]
    refusals = [(r.what, r.why) for r in h.refusals]
    layers = [x.state for x in h.layers]
    return digest(
        [h.status, h.strategy, layers, h.rule, h.platform, shown, h.reboot_why, h.overrides, h.notes, refusals]
    )


@dataclass
class Tally:
    """What the last line of a dry run says."""

    hosts: int = 0
    changes: int = 0
    reboots: int = 0
    states: dict[str, int] = field(default_factory=dict)
    changing: int = 0  # hosts that something is done on

    def add(self, h: HostPlan) -> None:
        """Count a host."""
        self.hosts += 1
        self.reboots += h.reboot
        self.states[h.status] = self.states.get(h.status, 0) + 1
        if h.status == "changes":
            self.changes += len(h.changes)
            self.changing += bool(h.changes)

    def line(self) -> str:
        """``plan: 12 hosts, …``."""
        words = {
            "changes": "to change",
            "none": "with nothing to change",
            "refused": "refused",
            "unsupported": "not supported yet",
            "audit": "audited only",
            "waived": "waived",
        }
        parts = [f"{self.states[k]:,} {w}" for k, w in words.items() if k in self.states]
        known = f"plan: {self.hosts:,} hosts, {', '.join(parts) or 'none'}"
        return f"{known}; {self.changes:,} changes, {self.reboots:,} reboots needed"


def planned(plan: Plan) -> None:
    """The dry run."""
    for signer in plan.signers:
        line(f"signed: {signer}", "dim")
    planned_hosts(plan.hosts)


def planned_hosts(hosts: Iterable[HostPlan]) -> Tally:
    """The dry run of hosts that come one by one: those whose plans read the same are shown once, and only one is kept."""
    groups: dict[str, tuple[HostPlan, list[str]]] = {}
    tally = Tally()
    for h in hosts:
        tally.add(h)
        groups.setdefault(_key(h), (h, []))[1].append(h.host)
    for h, names in groups.values():
        _planned(h, names)
    line(tally.line(), "bold")
    return tally


def _planned(h: HostPlan, names: Sequence[str]) -> None:
    line(f"{some(names)}: {h.platform}", "bold")
    if h.overrides:
        line(f"  overrides: {', '.join(h.overrides)}", "dim")
    if h.strategy:
        states = ", ".join(f"{layer.name} {layer.state}" for layer in h.layers)
        line(f"  strategy: {h.strategy}  ({states})")
    elif h.status in ("changes", "none", "audit"):
        line("  no kdump is wanted on this host")
    if h.status not in ("refused", "unsupported"):
        line(f"  rule: {h.rule}", "dim")
    for r in h.refusals:
        line(f"  {'not supported' if h.status == 'unsupported' else 'refused'}: {r.what} [{r.id}]", "red")
        line(f"    why: {r.why}")
        if r.fix:
            line(f"    fix: {r.fix}")
        for s in r.sources:
            line(f"    source: {s.title}", "dim")
    if h.rows:
        table(
            ("", "WANTED", "NEXT BOOT", "RUNNING", "LOADED"),
            [(r.what, r.wanted, r.next_boot, r.running, r.loaded) for r in h.rows],
            indent=2,
        )
    for number, change in enumerate(h.changes, 1):
        line(f"  {number}. {change.what}: {change.why}", "cyan")
        diff(change.diff)
    if h.reboot:
        line(f"  reboot needed: {h.reboot_why}", "yellow")
    if h.status == "none":
        line("  nothing to change", "green")
    if h.status == "waived":
        line("  waived: nothing is planned here", "yellow")
    if h.status == "audit":
        line("  audit: reported only, the policy does not enforce here", "yellow")
    for note in h.notes:
        line(f"  note: {note}", "dim")
    line()


def total(plan: Plan) -> str:
    """The last line: how many hosts are in which state."""
    tally = Tally()
    for h in plan.hosts:
        tally.add(h)
    return tally.line()


def outcomes(results: Sequence[Outcome]) -> None:
    """What an apply or a rollback did."""
    for o in results:
        good = o.state in ("committed", "rolled-back", "nothing", "check")
        tail = ", rebooted" if o.rebooted else ""
        line(f"{o.host}: {o.state}{tail}", "green" if good else "bold red")
        for recovered in o.recovered:
            line(f"  {recovered}", "yellow")
        for step in o.steps:
            seconds = step.get("seconds")
            took = f" ({seconds:.1f} s)" if isinstance(seconds, (int, float)) else ""
            line(f"  {step.get('result', '?')}: {step.get('what', step.get('op', '?'))}{took}")
            if _PUBLIC_KEY.match(output := str(step.get("output", ""))):
                line(f"    {output}")
        for path in o.put_back:
            line(f"  {'would go back' if o.state == 'check' else 'put back'}: {path}")
        diff(o.diff)
        if o.error:
            line(f"  {o.error.get('what', '')}", "red")
            for key in ("why", "fix"):
                if o.error.get(key):
                    line(f"    {key}: {o.error[key]}")


def verdicts(results: Sequence[Verdict]) -> None:
    """Checks with their evidence: all of them for one host, the failing ones for many."""
    for v in results:
        aside = f" ({v.waived} waived)" if v.waived else ""
        line(
            f"{v.host}: {v.status}{aside}  {v.platform}{', relies on ' + v.strategy if v.strategy else ''}",
            "green" if v.status == "pass" else "bold red",
        )
        if v.proof is not None:
            at = f" on {v.proof.at[:10]}" if v.proof.at else ""
            line(f"  {v.proof.state}{at}: {v.proof.why}", "" if v.proof.state == "proven" else "yellow")
        for c in v.checks:
            if len(results) > 1 and c.verdict in ("pass", "skip"):
                continue
            line(f"  {c.verdict:<7} {c.id}: {c.title}", _STYLE.get(c.verdict, ""))
            line(f"          {c.evidence}", "dim")
            if c.fix and c.verdict != "pass":
                line(f"          fix: {c.fix}")


def counts(results: Sequence[Verdict]) -> dict[str, int]:
    """Hosts by status. What passes only because of waivers is counted with what passes, and apart."""
    found = {s: sum(v.status == s for v in results) for s in ("pass", "fail", "refused", "unsupported")}
    return {
        **found,
        "pass_with_waivers": sum(v.status == "pass" and v.waived > 0 for v in results),
        "waived_checks": sum(v.waived for v in results),
    }


def tally(results: Sequence[Verdict]) -> None:
    """The last line of a validation: how many hosts are in which state, and what is only waived."""
    n = counts(results)
    parts = []
    for status, word in (
        ("pass", "pass"),
        ("fail", "fail"),
        ("refused", "refused"),
        ("unsupported", "not supported yet"),
    ):
        among = [v.waived for v in results if v.status == status and v.waived]
        checks = f"{sum(among)} waived check{'s' if sum(among) != 1 else ''}"
        aside = f" ({len(among)} of them with {checks})" if among else ""
        parts += [f"{n[status]} {word}{aside}"] if n[status] else []
    line(f"validate: {len(results)} hosts: {', '.join(parts) or 'none'}", "bold")
