# SPDX-License-Identifier: Apache-2.0
"""Findings of many hosts, the same ones together: what a pull request, a code scanner or a person wants to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestrator.documents.findings import Finding, ReportHost

ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass
class Group:
    """One kind of finding about one line of the policy. ``first``: as it is on the first host by name."""

    first: Finding
    hosts: list[str] = field(default_factory=list)


def groups(hosts: Iterable[ReportHost]) -> list[Group]:
    """Findings by level, id and line of the policy, the ones with most hosts first within a level."""
    found: dict[tuple[str, str, str], Group] = {}
    for host in hosts:
        for finding in host.findings:
            group = found.setdefault((finding.level, finding.id, finding.where), Group(finding))
            if not group.hosts or group.hosts[-1] != host.host:
                group.hosts.append(host.host)
    return sorted(found.values(), key=lambda g: (ORDER.get(g.first.level, 3), -len(g.hosts), g.first.id, g.first.where))
