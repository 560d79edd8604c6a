# SPDX-License-Identifier: Apache-2.0
"""One tree of errors. A user's mistake is a :class:`KdoError` and never shows a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of ``kdo``; documented in docs/exit-codes.md and tested one by one."""

    OK = 0  # fine, nothing to change
    INTERNAL = 1  # our fault
    PENDING = 2  # changes pending, or a violation
    FAILED = 3  # some hosts failed
    UNREACHABLE = 4  # some hosts could not be reached
    INVALID = 5  # policy, inventory, facts or plan is not valid; nothing was touched
    STALE = 6  # the plan was made for a state that a host has left
    INTERRUPTED = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a word that does not exist; empty where nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


@dataclass(frozen=True)
class Problem:
    """One finding: what is wrong, where (``file:line:col`` or host), why it matters, what to do about it."""

    what: str
    where: str = ""
    why: str = ""
    fix: str = ""
    id: str = ""
    severity: str = "error"  # error | warning | note

    def lines(self) -> list[str]:
        """Text for a terminal: the first line says where and what, the others are indented."""
        tag = f" [{self.id}]" if self.id else ""
        first = f"{self.where}: " if self.where else ""
        out = [f"{first}{self.severity}: {self.what}{tag}"]
        out += [f"  why: {self.why}"] if self.why else []
        out += [f"  fix: {self.fix}"] if self.fix else []
        return out


class KdoError(Exception):
    """Base of every error that a user can cause or mend. Carries one or more problems and an exit code."""

    exit_code: Exit = Exit.INTERNAL

    def __init__(
        self, what: str | list[Problem], *, where: str = "", why: str = "", fix: str = "", id: str = ""
    ) -> None:
        self.problems = what if isinstance(what, list) else [Problem(what, where, why, fix, id)]
        super().__init__("\n".join(p.what for p in self.problems))


class InvalidInput(KdoError):
    """Something that the user gave us is not valid; nothing was touched."""

    exit_code = Exit.INVALID


class PolicyError(InvalidInput):
    """The policy is not valid, or orders what no platform in its reach can do."""


class InventoryError(InvalidInput):
    """The inventory cannot be read, or names no host."""


class FactsError(InvalidInput):
    """A facts document cannot be read."""


class PlanError(InvalidInput):
    """A plan file cannot be read, or was changed by hand."""


class StalePlan(KdoError):
    """A host has moved on since the plan was made."""

    exit_code = Exit.STALE


class Unreachable(KdoError):
    """Another machine could not be reached, or is not the one that it should be."""

    exit_code = Exit.UNREACHABLE


class KnowledgeError(KdoError):
    """Shipped data is broken: our fault."""
