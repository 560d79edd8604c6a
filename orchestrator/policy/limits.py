# SPDX-License-Identifier: Apache-2.0
"""Wishes that some hosts cannot meet: policies/knowledge/limits.yaml held against the settings of a rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.policy.match import Matcher

_MISSING = object()


@dataclass(frozen=True)
class Limit:
    """One row: hosts of ``match`` cannot do what ``setting`` asks for."""

    id: str
    setting: str
    values: tuple[Any, ...] | None  # None = any value
    above: int | None
    match: Matcher
    why: str
    fix: str
    sources: tuple[str, ...]
    where: str
    source: Mapping[str, Any]

    def hit(self, settings: Mapping[str, Any]) -> bool:
        """Whether these settings ask for it."""
        value = wish(settings, self.setting)
        if value is _MISSING:
            return False
        if self.above is not None:
            return bool(value > self.above)
        return self.values is None or value in self.values


def wish(settings: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted setting, or a mark of its absence."""
    if name == "capture.cpus":
        return _cpus(settings.get("capture", {}).get("ensure", ()))
    value: Any = settings
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _cpus(arguments: Iterable[str]) -> Any:
    found = [a.partition("=")[2] for a in arguments if a.startswith(("nr_cpus=", "maxcpus="))]
    numbers = [int(n) for n in found if n.isdigit()]
    return max(numbers) if numbers else _MISSING


def asked(limits: Iterable[Limit], settings: Mapping[str, Any]) -> Iterator[Limit]:
    """The limits that these settings could run into, whatever the host."""
    return (limit for limit in limits if limit.hit(settings))
