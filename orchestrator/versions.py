# SPDX-License-Identifier: Apache-2.0
"""Comparing kernel, package and distribution versions after the UAPI Group's version format specification.

``packaging.version`` refuses ``5.14.0-503.el9`` and ``6.1.0-18-amd64``; this order accepts every string.
Source: https://uapi-group.org/specifications/specs/version_format_specification/
"""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering

_IGNORED = re.compile(r"[^a-zA-Z0-9~^.\-]+")
_DIGITS = re.compile(r"[0-9]*")
_ALPHA = re.compile(r"[a-zA-Z]*")


def _compare(a: str, b: str) -> int:  # -1, 0, 1
    i = j = 0
    while True:
        if m := _IGNORED.match(a, i):
            i = m.end()
        if m := _IGNORED.match(b, j):
            j = m.end()
        ca, cb = a[i : i + 1], b[j : j + 1]
        if ca == "~" or cb == "~":  # a pre-release is older than its release
            if ca != cb:
                return -1 if ca == "~" else 1
            i, j = i + 1, j + 1
            continue
        if not ca or not cb:
            return bool(ca) - bool(cb)
        moved = False
        for separator in "-^.":  # whoever reaches a separator first is the shorter, older one
            if separator in (ca, cb):
                if ca != cb:
                    return -1 if ca == separator else 1
                i, j, moved = i + 1, j + 1, True
                break
        if moved:
            continue
        if ca.isdigit() or cb.isdigit():
            ma, mb = _DIGITS.match(a, i), _DIGITS.match(b, j)
            da, db = (ma.group() if ma else ""), (mb.group() if mb else "")
            if not da or not db:
                return bool(da) - bool(db)
            na, nb = int(da), int(db)
            if na != nb:
                return -1 if na < nb else 1
            i, j = i + len(da), j + len(db)
            continue
        ma, mb = _ALPHA.match(a, i), _ALPHA.match(b, j)
        wa, wb = (ma.group() if ma else ""), (mb.group() if mb else "")
        if wa != wb:
            return -1 if wa < wb else 1
        i, j = i + len(wa), j + len(wb)


@lru_cache(maxsize=4096)
def compare(a: str, b: str) -> int:
    """-1, 0 or 1 as ``a`` is older than, as old as, or newer than ``b``."""
    return _compare(a[:256], b[:256])


@total_ordering
class Version:
    """A version string with the order above, for ``sorted`` and ``max``."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and compare(self.text, other.text) == 0

    def __lt__(self, other: Version) -> bool:
        return compare(self.text, other.text) < 0

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Version({self.text!r})"


def kernel_base(release: str) -> str:
    """Upstream part of a kernel release: ``6.1.0-18-amd64`` → ``6.1.0``. Distributions count on from there."""
    m = re.match(r"[0-9]+(\.[0-9]+)*", release)
    return m.group() if m else ""


@lru_cache(maxsize=4096)
def at_least(release: str, minimum: str) -> bool:
    """Whether a kernel release is ``minimum`` or newer: the upstream numbers decide, missing parts count as zero."""
    return _numbers(kernel_base(release)) >= _numbers(minimum)


def _numbers(text: str) -> tuple[int, ...]:
    parts = [int(p) for p in re.findall(r"[0-9]+", text)]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
