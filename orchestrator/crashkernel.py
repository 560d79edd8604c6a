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
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_OCTAL = re.compile(r"[0-7]+")


def parse_size(text: str) -> int:
    """Bytes of ``256M``, ``0x1000``, ``2G`` (binary units, as the kernel's ``memparse``)."""
    m = _SIZE.match(text)
    if not m:
        raise InvalidInput(
            f"{text[:40]!r} is not a size", why="a number with K, M, G, T, P or E was expected", fix="e.g. 256M"
        )
    if m.group(1)[0] == "0" and m.group(1).isdigit() and int(m.group(1)):
        raise InvalidInput(f"{text[:40]!r} is octal to the kernel", why="of the leading 0", fix="leave the 0 out")
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
        return _of_ranges(str(self), ram) if self.ranges else self.size or 0


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


def _memparse(text: str, at: int) -> tuple[int, int]:
    """The kernel's ``memparse()``: the number at ``at`` and where it ends; ``at`` itself if there is none.

    A leading 0 makes it octal, 0x hexadecimal; one unit may follow, also nothing (``M`` is 0); 64 bits wrap around.
    """
    m = _NUMBER.match(text, at)
    digits, value, end = m[0] if m else "", 0, m.end() if m else at
    if digits[:2].lower() == "0x":
        value = int(digits, 16)
    elif digits[:1] == "0":
        octal = _OCTAL.match(digits)
        value, end = (int(octal[0], 8), at + octal.end()) if octal else (0, at)
    elif digits:
        value = int(digits)
    unit = text[end : end + 1].upper()
    if unit and unit in _UNITS:
        value, end = value * _UNITS[unit], end + 1
    return value % (1 << 64), end


def _of_ranges(text: str, ram: int) -> int:
    """What a range list reserves. Ranges after the one that matches are not even looked at."""
    total, at = round_ram(ram), 0
    while True:
        start, end = _memparse(text, at)
        if end == at or text[end : end + 1] != "-":
            return 0
        at, limit = end + 1, (1 << 64) - 1
        if text[at : at + 1] != ":":
            limit, end = _memparse(text, at)
            if end == at or limit <= start:
                return 0
            at = end
        if text[at : at + 1] != ":":
            return 0
        size, end = _memparse(text, at + 1)
        if end == at + 1 or size >= total:
            return 0
        at = end
        if start <= total < limit:
            offset = text.find("@", at) + 1  # 0: there is none
            return 0 if offset and _memparse(text, offset)[1] == offset else size
        if text[at : at + 1] != ",":
            return 0
        at += 1


def _of_plain(text: str, ram: int) -> int:
    """What the kernel makes of one value without a suffix; 0 where it only warns."""
    if ":" in text:
        return _of_ranges(text, ram)
    size, at = _memparse(text, 0)
    return size if at and text[at : at + 1] in ("", "@") else 0


def _of_suffix(text: str, suffix: str) -> int:
    size, at = _memparse(text, 0)
    return size if at and text[at:] == suffix else 0


def reserved_by(arguments: Sequence[str], ram: int) -> int:
    """Bytes that a kernel reserves for these ``crashkernel=`` values, in the order of its command line.

    Of each form the last one counts, also when the kernel cannot read it: then nothing is reserved. High and low parts
    count only without any plain form. ``,cma`` memory is not counted: it is lent out. Compared with the parser of
    kernel/crash_core.c (6.1) on random command lines.
    """
    plain: str | None = None
    high = low = ""
    for text in arguments:
        if text.endswith(",high"):
            high = text
        elif text.endswith(",low"):
            low = text
        elif not text.endswith(",cma"):
            plain = text
    if plain is not None:
        return _of_plain(plain, ram)
    above = _of_suffix(high, ",high") if high else 0
    return above + (_of_suffix(low, ",low") if above and low else 0)
