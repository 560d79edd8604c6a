# SPDX-License-Identifier: Apache-2.0
"""What is asked of every boot stack: what boots next, how its arguments are changed, and how they are tried once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cmdline import key_of, values
from orchestrator.documents.decision import Refusal
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredFile, DesiredState

TRIAL = "kdump-orchestrator-trial-"  # how the host side names the entry of a trial


@dataclass(frozen=True)
class NextBoot:
    """What the next boot will really run. ``known=False``: it cannot be told, ``why``, and what to do by hand (``fix``)."""

    known: bool
    why: str = ""
    fix: str = ""
    title: str = ""
    kernel: str = ""  # path as the boot loader names it
    release: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BootPlan:
    """What must be done so that every boot has the wanted arguments."""

    changes: list[Change] = field(default_factory=list)  # all of them make arguments the default
    expect: list[dict[str, Any]] = field(default_factory=list)  # what holds afterwards
    trial: dict[str, Any] = field(default_factory=dict)  # step that tries them for one boot; empty = nothing to try
    obstacle: Refusal | None = None


class Stack:
    """One boot stack. ``data`` is what knowledge says of it for the host's family (families.yaml, ``boot``)."""

    #: Where the stack keeps the arguments, for messages.
    place = "the boot configuration"
    #: Names of the host's actions that try arguments for one boot.
    trials: tuple[str, ...] = ()
    #: What it means that a trial that has booted is still chosen.
    repeats = "the choice for one boot is still there, and would be repeated"

    def next_boot(self, facts: Facts) -> NextBoot:
        """What boots next, read from what will really boot and not from what that is made from."""
        raise NotImplementedError

    def plan(
        self, facts: Facts, desired: DesiredState, boot: NextBoot, wrong: list[str], data: Mapping[str, Any]
    ) -> BootPlan:
        """The changes. ``wrong``: how the next boot's arguments differ from the wanted ones (empty = not at all)."""
        raise NotImplementedError

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """The files in which the arguments are kept, as wanted."""
        raise NotImplementedError

    def no_trial(self, facts: Facts) -> str:
        """Why arguments cannot be tried for one boot, as far as it can be seen from here; the host looks at the rest."""
        return f"{self.place} knows no choice for one boot"

    def once(self, facts: Facts) -> str:
        """The entry that was chosen for the next boot alone; empty = none, or the stack knows no such choice."""
        return ""

    def once_by_others(self, facts: Facts) -> str:
        """The same, but for a trial of ours: that is not what stays."""
        once = self.once(facts)
        return "" if once.startswith(TRIAL) else once

    def taken(self, facts: Facts) -> str:
        """Why the choice for one boot is not free; empty if it is."""
        return "somebody has already chosen an entry for the next boot" if self.once_by_others(facts) else ""

    def left_over(self, facts: Facts) -> str:
        """What a trial left that was neither confirmed nor rolled back; empty if nothing (or if it cannot be seen)."""
        return "boot arguments on trial are chosen for the next boot" if self.once(facts).startswith(TRIAL) else ""

    def key(self, facts: Facts) -> Any:
        """All that :meth:`plan` looks at besides the next boot; hosts that agree in it may share a plan."""
        return None

    def trial_problem(self, step: Mapping[str, Any], facts: Facts) -> str:
        """Why the host does not run the trial as it should; empty if it does."""
        if self.once(facts).startswith(TRIAL):
            return self.repeats
        wanted: dict[str, list[str]] = {key_of(word): [] for word in step["remove"]}
        for argument in step["ensure"]:
            wanted.setdefault(key_of(argument), [])
        for argument in step["ensure"]:
            wanted[key_of(argument)].append(argument.partition("=")[2])
        for key, there in wanted.items():
            if values(facts.kernel.cmdline, key) != there:
                have = " ".join(f"{key}={v}" if v else key for v in values(facts.kernel.cmdline, key)) or f"no {key}"
                return f"the running kernel has {have}: it was not started from the trial entry"
        return ""


def gone(desired: DesiredState) -> list[str]:
    """Keys that no boot may have."""
    keys = {key_of(a) for a in desired.boot_ensure}
    return [k for k in desired.boot_remove if k not in keys]


def try_step(name: str, desired: DesiredState) -> dict[str, Any]:
    """The step that tries the wanted arguments; empty where there is nothing to try."""
    ensure, remove = list(desired.boot_ensure), gone(desired)
    return {"op": "action", "name": name, "ensure": ensure, "remove": remove} if ensure or remove else {}
