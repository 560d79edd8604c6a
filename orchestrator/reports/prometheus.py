# SPDX-License-Identifier: Apache-2.0
"""Metrics in Prometheus' text format. The number of series has a bound: no host, no kernel and no reason is a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator import __version__
from orchestrator.documents.dashboard import FleetStatus
from orchestrator.documents.findings import ReportHost
from orchestrator.store.hosts import STATES

#: Different labels of one metric; whatever is beyond them is "other", so that hosts' own words cannot flood a server.
MOST = 100


class Metrics:
    """Counts hosts as they come by, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        self.platforms: Counter[tuple[str, str, str]] = Counter()
        self.strategies: Counter[str] = Counter()
        self.proofs: Counter[str] = Counter()
        self.findings: Counter[tuple[str, str]] = Counter()
        self.runs: Counter[tuple[str, str]] = Counter()
        self.oldest = ""

    @classmethod
    def of(
        cls, status: FleetStatus, strategies: Mapping[str, int], oldest: str, runs: Mapping[tuple[str, str], int]
    ) -> Metrics:
        """From numbers that a database has counted. There are no findings in them: those stand in each host's documents."""
        made = cls()
        made.states.update(status.states)
        made.platforms.update(
            {(c.arch or "unknown", c.hypervisor or "unknown", c.state): c.hosts for c in status.platforms}
        )
        made.strategies.update({name or "none": n for name, n in strategies.items()})
        made.proofs.update(status.proofs)
        made.runs.update(runs)
        made.oldest = oldest
        return made

    def add(self, hosts: Iterable[ReportHost]) -> Metrics:
        """Count these hosts, too."""
        for h in hosts:
            self.states[h.state] += 1
            self.platforms[(h.arch or "unknown", h.hypervisor or "unknown", h.state)] += 1
            self.strategies[h.strategy or "none"] += 1
            self.proofs[h.proof or "unknown"] += 1
            self.findings.update({(f.id, f.level) for f in h.findings})
            if h.seen and (not self.oldest or h.seen < self.oldest):
                self.oldest = h.seen
        return self

    def text(self, at: datetime) -> bytes:
        """The whole page. ``at``: when the store was read."""
        out: list[str] = []
        _metric(out, "kdo_build_info", "Version of the tool that wrote this.", ("version",), {(__version__,): 1})
        _metric(out, "kdo_hosts", "Hosts by state.", ("state",), {(s,): n for s, n in self.states.items()})
        _metric(
            out, "kdo_platform_hosts", "Hosts by platform and state.", ("arch", "hypervisor", "state"), self.platforms
        )
        strategies = {(s,): n for s, n in self.strategies.items()}
        _metric(out, "kdo_strategy_hosts", "Hosts by cleanup strategy.", ("strategy",), strategies)
        _metric(
            out,
            "kdo_proof_hosts",
            "Hosts by what their crash tests say.",
            ("proof",),
            {(p,): n for p, n in self.proofs.items()},
        )
        _metric(out, "kdo_finding_hosts", "Hosts with a finding.", ("finding", "level"), self.findings)
        if self.runs:
            _metric(out, "kdo_runs", "Runs on record.", ("kind", "state"), self.runs)
        if self.oldest:
            moment = datetime.fromisoformat(self.oldest.replace("Z", "+00:00"))
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            what = "When the host that has been silent longest last answered."
            _metric(out, "kdo_oldest_answer_timestamp_seconds", what, (), {(): moment.timestamp()})
        _metric(out, "kdo_report_timestamp_seconds", "When the store was read.", (), {(): at.timestamp()})
        return ("\n".join(out) + "\n").encode()


def _metric(out: list[str], name: str, what: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> None:
    out += [f"# HELP {name} {what}", f"# TYPE {name} gauge"]
    ranked = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(n for _, n in ranked[MOST:])
    shown = sorted(ranked[:MOST]) + ([(("other",) * len(labels), rest)] if ranked[MOST:] else [])
    for key, number in shown:
        pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(labels, key, strict=True))
        out.append(f"{name}{{{pairs}}} {number:.15g}" if pairs else f"{name} {number:.15g}")


def _escaped(value: str) -> str:
    cut = "".join(c if c.isprintable() else "?" for c in value)[:100]
    return cut.replace("\\", "\\\\").replace('"', '\\"')
