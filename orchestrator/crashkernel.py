# SPDX-License-Identifier: Apache-2.0
"""The grammar of ``crashkernel=`` and the reservation that the kernel makes of it.

Rules from kernel/crash_reserve.c: the last occurrence of each form counts; a plain form makes ``,high`` and ``,low``
ignored; in a range list START is inclusive and END exclusive, RAM is rounded up to 128 MiB, the first match counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import InvalidInput

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50, "E": 1 << 60}
_SIZE = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)([KMGTPEkmgtpe]?)\Z")
_ROUND = 128 * MIB


def parse_size(text: str) -> int:
    """Bytes of ``256M``, ``0x1000``, ``2G`` (binary units, as the kernel's ``memparse``)."""
    m = _SIZE.match(text)
    if not m:
        raise InvalidInput(
            f"{text[:40]!r} is not a size", why="a number with K, M, G, T, P or E was expected", fix="e.g. 256M"
        )
    return int(m.group(1), 0 if m.group(1)[:2].lower() == "0x" else 10) * _UNITS[m.group(2).upper()]


def format_size(size: int) -> str:
    """The shortest exact text: 268435456 → ``256M``."""
    for unit in ("E", "P", "T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def round_ram(ram: int) -> int:
    """RAM in bytes as range lists see it: the kernel rounds it up to 128 MiB first."""
    return -(-ram // _ROUND) * _ROUND


@dataclass(frozen=True)
class Range:
    """``start-end:size``; ``end`` is ``None`` for an open range. Bytes."""

    start: int
    end: int | None
    size: int

    def __str__(self) -> str:
        end = "" if self.end is None else format_size(self.end)
        return f"{format_size(self.start)}-{end}:{format_size(self.size)}"


@dataclass(frozen=True)
class Crashkernel:
    """One ``crashkernel=`` value: a plain size, a range list, or a size with a suffix (high, low, cma)."""

    size: int | None = None
    ranges: tuple[Range, ...] = ()
    offset: int | None = None
    suffix: str = ""

    def __str__(self) -> str:
        body = ",".join(str(r) for r in self.ranges) if self.ranges else format_size(self.size or 0)
        at = "" if self.offset is None else f"@{format_size(self.offset)}"
        return body + at + (f",{self.suffix}" if self.suffix else "")

    def reserve(self, ram: int) -> int:
        """Bytes that the kernel sets aside on a machine with ``ram`` bytes (0 = nothing, silently)."""
        if not self.ranges:
            return self.size or 0
        rounded = round_ram(ram)
        for r in self.ranges:
            if r.start <= rounded and (r.end is None or rounded < r.end):
                return r.size if r.size < rounded else 0
        return 0


def parse(text: str) -> Crashkernel:
    """Parse the part after ``crashkernel=``. Raises :class:`InvalidInput`."""
    if text == "auto":
        raise InvalidInput(
            "crashkernel=auto is not known to the kernel",
            why="only the kernels of RHEL 7 and 8 knew it; others silently reserve nothing",
            fix="leave crashkernel out: the distribution's own table is the default",
        )
    body, suffix = text, ""
    for candidate in ("high", "low", "cma"):
        if text.endswith("," + candidate):
            body, suffix = text[: -len(candidate) - 1], candidate
    offset: int | None = None
    if "@" in body:
        body, _, at = body.rpartition("@")
        offset = parse_size(at)
    if ":" not in body:
        return Crashkernel(size=parse_size(body), offset=offset, suffix=suffix)
    if suffix:
        raise InvalidInput(
            f"{text!r}: ranges cannot have the suffix ,{suffix}",
            why="the kernel ignores such a value",
            fix="use a plain size",
        )
    ranges = []
    for part in body.split(","):
        span, colon, size = part.partition(":")
        start, dash, end = span.partition("-")
        if not colon or not dash:
            raise InvalidInput(
                f"{part!r} is not START-[END]:SIZE", where="", why="e.g. 2G-64G:256M", fix="mend the range"
            )
        low, high = parse_size(start), (parse_size(end) if end else None)
        if high is not None and high <= low:
            raise InvalidInput(
                f"{part!r}: the end is not above the start",
                why="the kernel then reserves nothing at all",
                fix="swap them",
            )
        ranges.append(Range(low, high, parse_size(size)))
    return Crashkernel(ranges=tuple(ranges), offset=offset)


def reserved_by(arguments: Sequence[str], ram: int) -> int:
    """Bytes that a kernel reserves for these ``crashkernel=`` values, in the order of its command line.

    Unreadable values count as absent: the kernel only warns. ``,cma`` memory is not counted: it is lent out.
    """
    plain: Crashkernel | None = None
    high: Crashkernel | None = None
    low: Crashkernel | None = None
    for text in arguments:
        try:
            value = parse(text)
        except InvalidInput:
            continue
        if value.suffix == "high":
            high = value
        elif value.suffix == "low":
            low = value
        elif not value.suffix:
            plain = value
    if plain is not None:
        return plain.reserve(ram)
    if high is not None:
        return high.reserve(ram) + (low.reserve(ram) if low is not None else 0)
    return 0
