# SPDX-License-Identifier: Apache-2.0
"""What a decision sees of a host, as a small hashable key: hosts with equal shapes get equal decisions.

Of a field with few values (arch, hypervisor, …) the value itself is the key; of one with many (memory, kernel, host name)
only the answers of the clauses that ask for it are, remembered per value. So a policy that tells hosts apart by name or
size does not make every host its own case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.policy.context import Features, getter
from orchestrator.policy.match import Matcher, Test

_MANY = frozenset(
    (
        "kernel",
        "memory",
        "product",
        "host",
        "groups",
        "tags",
        "drivers",
        "distribution_version",
        "page_size",
        "cpus",
        "target_room",
    )
)
_KEEP = 50_000


class _Answers:
    """Value of one field → the answers of all clauses about it."""

    __slots__ = ("_seen", "_tests")

    def __init__(self, tests: Iterable[Test]) -> None:
        self._tests = tuple(tests)
        self._seen: dict[Any, tuple[bool | None, ...] | None] = {None: None}

    def __call__(self, value: Any) -> tuple[bool | None, ...] | None:
        try:
            return self._seen[value]
        except KeyError:
            if len(self._seen) > _KEEP:
                self._seen.clear()
                self._seen[None] = None
            found = self._seen[value] = tuple([test(value) for test in self._tests])
            return found


class Shape:
    """Compiled from all matchers that a decision consults."""

    def __init__(self, matchers: Iterable[Matcher], more: Iterable[str], features: Features) -> None:
        """``more``: names of fields whose values count besides the ones that the matchers ask for."""
        tests: dict[str, list[Test]] = {}
        for matcher in matchers:
            for leaf in matcher.leaves():
                if leaf.of_value is not None:
                    tests.setdefault(leaf.field, []).append(leaf.of_value)
        whole = sorted({*more, *(f for f in tests if f not in _MANY)})
        self._whole: tuple[Callable[[Facts, Platform], Any], ...] = tuple(getter(f, features) for f in whole)
        self._asked = tuple(
            (getter(f, features), _Answers(tests[f])) for f in sorted(tests) if f in _MANY and f not in whole
        )

    def __call__(self, facts: Facts, platform: Platform) -> tuple[Any, ...]:
        """The key of one host."""
        return (
            *[get(facts, platform) for get in self._whole],
            *[answers(get(facts, platform)) for get, answers in self._asked],
        )
