# SPDX-License-Identifier: Apache-2.0
"""One module per boot stack: how the arguments of the next boot are read and set."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.bootloaders import bls, grub
from orchestrator.bootloaders.base import NextBoot
from orchestrator.documents.facts import Facts

_READERS: dict[str, Callable[[Facts], NextBoot]] = {"grub": grub.next_boot, "grub-bls": bls.next_boot}


def next_boot(stack: str, facts: Facts) -> NextBoot:
    """What boots next, read by the stack's own module."""
    reader = _READERS.get(stack)
    if reader is None:
        return NextBoot(False, f"the boot stack {stack!r} cannot be read yet")
    return reader(facts)
