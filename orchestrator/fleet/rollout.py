# SPDX-License-Identifier: Apache-2.0
"""How many hosts at a time, when to stop, and when a host may be rebooted. Pure: time is a parameter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from orchestrator.documents.plan import HostPlan, Rollout

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def share(text: str, of: int) -> int:
    """A number of hosts, or a percentage of ``of``, rounded up: one percent of ten hosts is one host."""
    if text.endswith("%"):
        return -(-int(text[:-1]) * of // 100)
    return int(text)


def waves(hosts: Sequence[HostPlan], rollout: Rollout) -> list[list[HostPlan]]:
    """The hosts in waves, in their order. Each wave goes up to its share of all; the last one takes the rest."""
    out: list[list[HostPlan]] = []
    begin = 0
    for text in rollout.waves:
        end = min(max(share(text, len(hosts)), begin), len(hosts))
        if end > begin:
            out.append(list(hosts[begin:end]))
        begin = end
    if begin < len(hosts):
        out.append(list(hosts[begin:]))
    return out


def too_many(failed: int, rollout: Rollout, of: int) -> bool:
    """Whether no further wave may begin."""
    return failed > share(rollout.max_fail, of)


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
