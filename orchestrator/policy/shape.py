# SPDX-License-Identifier: Apache-2.0
"""What a decision sees of a host, as a small hashable key: hosts with equal shapes get equal decisions.

The key has two parts. The first are the words of the platform (arch, hypervisor, …). They rule most clauses out, so the
second part, worked out once for each first part, asks only what can still matter there: nobody looks for an SMMU on x86.
Of a field with many values (memory, kernel, host name) only the answers of the clauses that ask for it are part of the
key, remembered per value: a policy that tells hosts apart by name or size does not make every host its own case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.policy.context import Cell, Features, getter
from orchestrator.policy.match import Matcher, Test

_FIRST = (
    "arch", "hypervisor", "role", "variant", "confidential", "confidential_host", "paravisor", "ambiguous",
    "family", "distribution", "cloud", "boot_stack",
)  # fmt: skip
_MANY = frozenset(
    ("kernel", "memory", "product", "host", "groups", "tags", "drivers", "distribution_version", "page_size", "cpus", "target_room")
)  # fmt: skip
_KEEP = 50_000

Get = Callable[[Facts, Platform], Any]
#: A matcher that a decision consults, and further fields that count where it may hold.
Entry = tuple[Matcher, Sequence[str]]


class _Answers:
    """Value of one field → the answers of some clauses about it."""

    __slots__ = ("_get", "_seen", "_tests")

    def __init__(self, get: Get, tests: Iterable[Test]) -> None:
        self._get = get
        self._tests = tuple(tests)
        self._seen: dict[Any, tuple[bool | None, ...] | None] = {None: None}

    def __call__(self, facts: Facts, platform: Platform) -> tuple[bool | None, ...] | None:
        value = self._get(facts, platform)
        try:
            return self._seen[value]
        except KeyError:
            if len(self._seen) > _KEEP:
                self._seen.clear()
                self._seen[None] = None
            found = self._seen[value] = tuple([test(value) for test in self._tests])
            return found


class Shape:
    """Compiled from everything that a decision consults."""

    def __init__(self, entries: Iterable[Entry], features: Features) -> None:
        self._entries = tuple(entries)
        self._features = features
        self._first = tuple(getter(f, features) for f in _FIRST)
        self._second: dict[tuple[Any, ...], tuple[Get, ...]] = {}

    def __call__(self, facts: Facts, platform: Platform) -> tuple[Any, ...]:
        """The key of one host."""
        first = tuple([get(facts, platform) for get in self._first])
        second = self._second.get(first)
        if second is None:
            if len(self._second) > _KEEP:
                self._second.clear()
            second = self._second[first] = self._asked(first)
        return first, tuple([get(facts, platform) for get in second])

    def _asked(self, first: tuple[Any, ...]) -> tuple[Get, ...]:
        """What can still matter on a platform: the fields of all matchers that are not certainly false there."""
        cell = Cell(dict(zip(_FIRST, first, strict=True)))
        tests: dict[str, list[Test]] = {}
        for matcher, more in self._entries:
            if matcher.test(cell) is False:  # whatever the other fields are
                continue
            for field in more:
                tests.setdefault(field, [])
            for leaf in matcher.leaves():
                if leaf.of_value is not None:
                    tests.setdefault(leaf.field, []).append(leaf.of_value)
        asked = [f for f in sorted(tests) if f not in _FIRST]
        many = [_Answers(getter(f, self._features), tests[f]) for f in asked if f in _MANY]
        return (*[getter(f, self._features) for f in asked if f not in _MANY], *many)
