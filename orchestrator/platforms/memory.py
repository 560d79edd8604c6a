# SPDX-License-Identifier: Apache-2.0
"""What the classifier remembers of earlier hosts: which rows match a text, and the platform of facts that were seen before.

Fleets repeat themselves, and a hostile one does not: everything of one classifier shares one :class:`Room`, so a stream
of a million hosts without two equal values takes no more memory than that.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from sys import getsizeof
from typing import Any

from orchestrator.documents.platform import Platform
from orchestrator.platforms.rows import Hit, Row, hit

#: About what a dictionary entry and what one hit or piece of evidence takes besides its texts, in bytes.
_ENTRY, _EACH = 200, 500


class Room:
    """Bytes for all that is remembered together. When they are used up, everything is forgotten."""

    SIZE = 48 << 20

    def __init__(self) -> None:
        self.left = self.SIZE
        self._stores: list[MutableMapping[Any, Any]] = []

    def join(self, store: MutableMapping[Any, Any]) -> None:
        """Let a store be emptied with all the others."""
        self._stores.append(store)

    def take(self, size: int) -> None:
        """To be called before something of that size is stored."""
        self.left -= size
        if self.left < 0:
            for store in self._stores:
                store.clear()
            self.left = self.SIZE - size


class Matches(dict[str, tuple[Hit, ...]]):
    """Value of one field → the rows that match it: each is tested against the rows once. Long texts are not kept."""

    LONGEST = 400

    def __init__(self, rows: Sequence[Row], room: Room) -> None:
        super().__init__()
        tests = [(r, r.test) for r in rows if r.test is not None]
        # Most rows of the kernel log look for one text, and a host has lines that no other has: no calls for those.
        self._texts = [(r.data["contains"], r) for r, _ in tests if isinstance(r.data.get("contains"), str)]
        self._tests = [(test, r) for r, test in tests if not isinstance(r.data.get("contains"), str)]
        self._room = room
        room.join(self)

    def __missing__(self, value: str) -> tuple[Hit, ...]:
        found = [row for text, row in self._texts if text in value]
        found += [row for test, row in self._tests if test(value)]
        if any(not r.fallback for r in found):
            found = [r for r in found if not r.fallback]
        result = tuple(hit(r, value) for r in found)
        if len(value) <= self.LONGEST:
            self._room.take(_ENTRY + getsizeof(value) + _EACH * len(result))
            self[value] = result
        return result


class Platforms(dict[bytes, Platform]):
    """Everything that a classification reads, as bytes → its result."""

    LONGEST = 64 << 10

    def __init__(self, room: Room) -> None:
        super().__init__()
        self._room = room
        room.join(self)

    def keep(self, key: bytes, platform: Platform) -> None:
        """Remember, unless the key is so long that a few of them would push everything else out."""
        if len(key) <= self.LONGEST:
            parts = 1 + len(platform.evidence) + len(platform.contradictions)
            self._room.take(_ENTRY + len(key) + _EACH * parts)
            self[key] = platform
