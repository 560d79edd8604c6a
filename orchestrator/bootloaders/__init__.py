# SPDX-License-Identifier: Apache-2.0
"""One module per boot stack: how the arguments of the next boot are read, set, and tried once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.bootloaders import pbl
from orchestrator.bootloaders.base import NextBoot, Stack
from orchestrator.bootloaders.bls import Bls
from orchestrator.bootloaders.grub import Grub
from orchestrator.bootloaders.rpmostree import RpmOstree
from orchestrator.bootloaders.systemdboot import SystemdBoot
from orchestrator.bootloaders.zipl import Zipl
from orchestrator.documents.facts import Facts

STACKS: dict[str, Stack] = {
    "grub": Grub(),
    "grub-bls": Bls(),
    "systemd-boot": SystemdBoot(),
    "zipl": Zipl(),
    "ostree": RpmOstree(),
}

# The stacks of families that write through tools of their own (families.yaml, ``via``): tool → stack.
_VIA: dict[str, Mapping[str, Stack]] = {"pbl": pbl.STACKS}


def writer(stack: str, data: Mapping[str, Any]) -> Stack:
    """The module that changes a boot stack. ``data``: what knowledge says of the stack on the host's family."""
    found: Stack = _VIA[data["via"]][stack] if "via" in data else STACKS[stack]
    return found


def next_boot(stack: str, facts: Facts) -> NextBoot:
    """What boots next, read by the stack's own module."""
    found = STACKS.get(stack)
    if found is None:
        return NextBoot(False, f"the boot stack {stack!r} cannot be read yet")
    return found.next_boot(facts)


def trial_problem(step: dict[str, object], facts: Facts) -> str:
    """Why a host does not run its trial as it should, whichever stack made the step; empty if it does."""
    for stack in STACKS.values():
        if step.get("name") in stack.trials:
            return stack.trial_problem(step, facts)
    return "this version does not know how the trial was made"
