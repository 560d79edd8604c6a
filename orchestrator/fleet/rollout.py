# SPDX-License-Identifier: Apache-2.0
"""How many hosts at a time, when to stop, and when a host may be rebooted. Pure: time is a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from orchestrator.documents.plan import HostPlan, Rollout

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Member:
    """A host as waves see it: its name, the groups of the inventory it is in, and its tags."""

    host: str
    groups: Sequence[str] = ()
    tags: Sequence[str] = ()

    def label(self, name: str) -> str:
        """The value of its tag ``name=value``, or for ``group:PATTERN`` its first group like that; "" without one."""
        kind, colon, pattern = name.partition(":")
        if colon and kind == "group":
            return next((g for g in sorted(self.groups) if fnmatchcase(g, pattern)), "")
        return next((t[len(name) + 1 :] for t in self.tags if t.startswith(f"{name}=")), "")


@dataclass(frozen=True)
class Wave:
    """Hosts that are changed together; ``name`` says which: canary, or the value of the rollout's label."""

    name: str
    hosts: Sequence[str]


def share(text: str, of: int) -> int:
    """A number of hosts, or a percentage of ``of``, rounded up: one percent of ten hosts is one host."""
    if text.endswith("%"):
        return -(-int(text[:-1]) * of // 100)
    return int(text)


def cut(hosts: Sequence[str], sizes: Iterable[str]) -> list[Sequence[str]]:
    """The hosts in their order, cut where each size says (a share of all of them); the last part takes the rest. None is empty."""
    out: list[Sequence[str]] = []
    begin = 0
    for text in sizes:
        end = min(max(share(text, len(hosts)), begin), len(hosts))
        if end > begin:
            out.append(hosts[begin:end])
        begin = end
    if begin < len(hosts):
        out.append(hosts[begin:])
    return out


def arrange(members: Sequence[Member], rollout: Rollout) -> list[Wave]:
    """Every host in exactly one wave, and no wave empty.

    The canary is what ``canary`` names, or, where waves are also made by a label, as many hosts as the first size says. All
    other sizes count within each value of the label, whose values come in the order of their names, hosts without it last.
    """
    first = [m for m in members if any(_named(m, pattern) for pattern in rollout.canary)]
    sizes = list(rollout.waves)
    if not rollout.canary and rollout.by and sizes:
        ordered = sorted(members, key=lambda m: (not m.label(rollout.by), m.label(rollout.by)))
        first = ordered[: share(sizes.pop(0), len(members))]
    chosen = {m.host for m in first}
    rest = [m for m in members if m.host not in chosen]
    out = [Wave("canary", [m.host for m in first])] if first else []
    values: Mapping[str, list[str]] = {}
    if rollout.by:
        names = sorted({m.label(rollout.by) for m in rest}, key=lambda v: (not v, v))
        values = {v: [m.host for m in rest if m.label(rollout.by) == v] for v in names}
    elif rest:
        values = {"": [m.host for m in rest]}
    for value, hosts in values.items():
        label = "group" if rollout.by.startswith("group:") else rollout.by
        name = f"{label}={value}" if value else f"no {rollout.by}" if rollout.by else ""
        out += [Wave(name, part) for part in cut(hosts, sizes)]
    return out


def _named(member: Member, pattern: str) -> bool:
    kind, colon, name = pattern.partition(":")
    if colon and kind == "group":
        return name in member.groups
    if colon and kind == "tag":
        return name in member.tags
    return fnmatchcase(member.host, pattern)


def closed(rollout: Rollout, of: int, failed: int, unreachable: int = 0) -> str:
    """Why no further wave may begin; "" = the gate is open. ``of``: all hosts of the run."""
    if failed > share(rollout.max_fail, of):
        return f"{failed} hosts have failed, allowed are {share(rollout.max_fail, of)} (rollout.max_fail {rollout.max_fail})"
    if unreachable > share(rollout.max_unreachable, of):
        allowed = f"{share(rollout.max_unreachable, of)} (rollout.max_unreachable {rollout.max_unreachable})"
        return f"{unreachable} hosts could not be reached, allowed are {allowed}"
    return ""


def _days(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _DAYS.index(first)
        end = _DAYS.index(last) if dash else begin
        found |= {d % 7 for d in range(begin, end + 1 if end >= begin else end + 8)}
    return found


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def in_window(windows: Iterable[str], now: datetime) -> bool:
    """Whether ``now`` lies in one of the windows (``"Sat-Sun 02:00-05:00"``, UTC; over midnight counts for the day it begins)."""
    now = now.astimezone(UTC)
    minute = now.hour * 60 + now.minute
    for text in windows:
        days_text, _, span = text.rpartition(" ")
        days = _days(days_text) if days_text else set(range(7))
        begin, end = (_minutes(t) for t in span.split("-"))
        if begin < end:
            if now.weekday() in days and begin <= minute < end:
                return True
            continue
        yesterday = (now - timedelta(days=1)).weekday()
        if (now.weekday() in days and minute >= begin) or (yesterday in days and minute < end):
            return True
    return False


def may_reboot(host: HostPlan, now: datetime) -> str:
    """Why the host may not be rebooted now; empty if it may."""
    if host.reboot_allowed == "never":
        return "the policy allows no reboot of this host"
    if host.reboot_allowed == "window" and not in_window(host.reboot_windows, now):
        return f"outside the policy's windows ({'; '.join(host.reboot_windows)} UTC)"
    return ""
