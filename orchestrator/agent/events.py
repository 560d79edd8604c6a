# SPDX-License-Identifier: Apache-2.0
"""From an event to the reason to look, and when to look: pure, time is a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import msgspec

from orchestrator.agent.interest import EventRow, words
from orchestrator.documents.watch import Reason

MAX_REASONS = 32  # kept between two looks; more of them are only counted


class Event(msgspec.Struct, frozen=True):
    """What netlink told of one device. ``devpath`` is below /sys."""

    action: str
    subsystem: str
    devpath: str
    driver: str = ""

    @property
    def name(self) -> str:
        """The device's name, as udev gives it."""
        return self.devpath.rsplit("/", 1)[-1].replace("!", "/")


def _fits(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, p) for p in patterns)


def reason(event: Event, rows: Sequence[EventRow]) -> Reason | None:
    """Why the event matters, or ``None`` when it does not."""
    for row in rows:
        m = row.match
        if event.subsystem not in words(m.subsystem) or event.action not in words(m.action):
            continue
        if _fits(event.name, m.never) or (m.name and not _fits(event.name, m.name)):
            continue
        if m.driver and not _fits(event.driver, m.driver):
            continue
        driver = f" ({event.driver})" if event.driver else ""
        return Reason(id=row.id, what=row.what, seen=f"{event.action} {event.subsystem} {event.devpath}{driver}"[:300])
    return None


def subsystems(rows: Sequence[EventRow]) -> list[str]:
    """What the monitor has to let through."""
    return sorted({s for row in rows for s in words(row.match.subsystem)})


@dataclass
class Debounce:
    """When to look after events: ``quiet`` seconds after the last one, at most ``most`` after the first.

    A storm of events (a hundred memory blocks) ends in one look, and one that never ends is not waited for.
    """

    quiet: float = 5.0
    most: float = 60.0
    first: float | None = None
    last: float = 0.0
    reasons: dict[str, Reason] = field(default_factory=dict)
    dropped: int = 0

    def add(self, reason: Reason, now: float) -> None:
        """Note an event. ``now`` in seconds of a clock that never goes back."""
        self.first = now if self.first is None else self.first
        self.last = now
        known = self.reasons.get(reason.id)
        if known is not None:
            self.reasons[reason.id] = msgspec.structs.replace(known, count=known.count + reason.count)
        elif len(self.reasons) < MAX_REASONS:
            self.reasons[reason.id] = reason
        else:
            self.dropped += 1

    def due(self) -> float | None:
        """The moment to look, or ``None`` when nothing has happened."""
        return None if self.first is None else min(self.last + self.quiet, self.first + self.most)

    def take(self) -> list[Reason]:
        """The reasons so far; from now on it is quiet again."""
        found = list(self.reasons.values())
        self.first, self.reasons, self.dropped = None, {}, 0
        return found
