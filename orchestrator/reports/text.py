# SPDX-License-Identifier: Apache-2.0
"""Text for terminals. Every string that came from a host is cleaned first: it may hold escape sequences."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]")


def clean(text: str, limit: int = 2000) -> str:
    """``text`` without anything that could steer a terminal; at most ``limit`` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", cut)


def one_line(text: str, limit: int = 200) -> str:
    """The same on one line."""
    return clean(" ".join(text.split()), limit)


def some(names: Sequence[str], limit: int = 8) -> str:
    """The first names, and how many there are when that is not all of them."""
    more = f", … ({len(names):,} hosts)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@cache
def console() -> Console:
    """stdout, whatever it is when a line is written: who calls as a library (and a test) may replace it.

    Colours only on a terminal and without NO_COLOR; wide lines are not broken when nobody looks.
    """
    from rich.console import Console  # noqa: PLC0415

    width = None if sys.stdout.isatty() else 200
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def line(text: str = "", style: str = "") -> None:
    """One cleaned line."""
    console().print(clean(text), style=style or None)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], indent: int = 0) -> None:
    """Columns as wide as they need to be, two spaces between them; the last one is not padded."""
    cells = [[one_line(c) for c in row] for row in rows]
    widths = [max([len(h), *(len(r[i]) for r in cells)]) for i, h in enumerate(headers)]
    pad = " " * indent

    def show(row: Sequence[str], style: str) -> None:
        line((pad + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True))).rstrip(), style)

    if any(headers):
        show(headers, "bold")
    for row in cells:
        show(row, "")


def diff(text: str, indent: int = 4) -> None:
    """A unified diff, coloured on a terminal."""
    pad = " " * indent
    for row in text.splitlines():
        style = (
            "green" if row.startswith("+") else "red" if row.startswith("-") else "dim" if row.startswith("@") else ""
        )
        line(pad + row, style)
