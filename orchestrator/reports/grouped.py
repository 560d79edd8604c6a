# SPDX-License-Identifier: Apache-2.0
"""Findings of many hosts, the same ones together: what a pull request, a code scanner or a person wants to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.documents.findings import Finding, ReportHost

ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass
class Group:
    """One finding about one line of the policy. ``first``: as it is on the first host by name; ``alike``: its reason is the same on all."""

    first: Finding
    hosts: list[str] = field(default_factory=list)
    alike: bool = True

    @property
    def why(self) -> str:
        """The reason, and whose it is where other hosts have another one."""
        return self.first.why if self.alike or not self.first.why else f"{self.first.why} (on {self.hosts[0]})"


def groups(hosts: Iterable[ReportHost]) -> list[Group]:
    """Findings by level, id, text and line of the policy, the ones with most hosts first within a level."""
    found: dict[tuple[str, str, str, str], Group] = {}
    for host in hosts:
        for finding in host.findings:
            group = found.setdefault((finding.level, finding.id, finding.what, finding.where), Group(finding))
            group.alike = group.alike and finding.why == group.first.why
            if not group.hosts or group.hosts[-1] != host.host:
                group.hosts.append(host.host)
    return sorted(found.values(), key=_rank)


def _rank(g: Group) -> tuple[int, int, str, str, str]:
    return ORDER.get(g.first.level, 3), -len(g.hosts), g.first.id, g.first.where, g.first.what
