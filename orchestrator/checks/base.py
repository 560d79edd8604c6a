# SPDX-License-Identifier: Apache-2.0
"""Checks: registered by id, pure, each with evidence. A check never guesses: what it cannot see is ``unknown``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.bootloaders.base import NextBoot
from orchestrator.distros.base import Capture
from orchestrator.documents.decision import Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredState
from orchestrator.documents.platform import Platform
from orchestrator.documents.verdict import Check


@dataclass(frozen=True)
class Subject:
    """All that a check may look at."""

    facts: Facts
    platform: Platform
    decision: Decision
    boot: NextBoot
    capture: Capture
    desired: DesiredState
    ram: int | None


Answer = tuple[str, str] | tuple[str, str, str]  # verdict, evidence, fix
Function = Callable[[Subject], Answer]

_REGISTRY: dict[str, tuple[str, bool, Function]] = {}


def check(id: str, title: str, *, enabled: bool = True) -> Callable[[Function], Function]:
    """Register a check under a stable id (waivers and reports name it).

    ``enabled=False``: it is about hosts on which no kdump is wanted.
    """

    def register(function: Function) -> Function:
        if id in _REGISTRY:
            raise ValueError(f"check {id} is registered twice")
        _REGISTRY[id] = (title, enabled, function)
        return function

    return register


def run_all(subject: Subject) -> list[Check]:
    """Every registered check that is about the wanted state, in the order of registration."""
    out = []
    for id, (title, enabled, function) in _REGISTRY.items():
        if enabled != subject.decision.settings.enabled:
            continue
        verdict, evidence, *fix = function(subject)
        out.append(Check(id=id, title=title, verdict=verdict, evidence=evidence, fix=fix[0] if fix else ""))
    return out


def all_checks() -> dict[str, str]:
    """Id → title of every check."""
    return {id: title for id, (title, _enabled, _function) in _REGISTRY.items()}


def function_of(id: str) -> Function:
    """The function behind a check."""
    return _REGISTRY[id][2]
