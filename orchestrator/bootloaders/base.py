# SPDX-License-Identifier: Apache-2.0
"""What is asked of every boot stack."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class NextBoot:
    """What the next boot will really run. ``known=False``: it cannot be told, and ``why``."""

    known: bool
    why: str = ""
    title: str = ""
    kernel: str = ""  # path as the boot loader names it
    release: str = ""
    arguments: list[str] = field(default_factory=list)
