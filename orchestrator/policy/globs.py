# SPDX-License-Identifier: Apache-2.0
"""Is there a name that all of these patterns match and none of those? Exact, with the semantics of ``fnmatchcase``.

Patterns run side by side as automata over the characters that they tell apart: each character that is mentioned, its
neighbours (the ends of ranges like ``[a-f]``) and one that no pattern mentions.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import cache

from orchestrator.policy.boxes import Undecided

MAX_STATES = 30_000
_PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789-.ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_USUAL = ("host", "web", "db", "a", "1", "x0", "")


@dataclass(frozen=True)
class _Pattern:
    """A pattern cut into one-character tests; ``loops`` has a bit for every ``*``, at its position."""

    text: str
    tokens: tuple[str, ...]
    loops: int
    head: str  # literal text before the first wildcard
    tail: str  # and after the last one

    @property
    def literal(self) -> bool:
        """Whether it matches exactly one name."""
        return len(self.head) == len(self.tokens) and not self.loops

    def closure(self, state: int) -> int:
        """Positions that are reached without a character: a ``*`` may match nothing."""
        return state | ((state & self.loops) << 1)

    def step(self, state: int, char: str) -> int:
        """Positions after one more character."""
        out, rest = state & self.loops, state & ~self.loops
        while rest:
            low = rest & -rest
            position = low.bit_length() - 1
            if position < len(self.tokens) and _accepts(self.tokens[position], char):
                out |= low << 1
            rest ^= low
        return self.closure(out)

    def accepts(self, state: int) -> bool:
        """Whether the name may end here."""
        return bool(state >> len(self.tokens) & 1)


@cache
def _accepts(test: str, char: str) -> bool:
    return fnmatchcase(char, test) if len(test) > 1 or test == "?" else test == char


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


@cache
def _cut(text: str) -> _Pattern:
    tokens: list[str] = []
    loops, i = 0, 0
    while i < len(text):
        end = i + 1
        if text[i] == "*":
            if not tokens or tokens[-1] != "*":
                loops |= 1 << len(tokens)
                tokens.append("*")
        elif text[i] == "[":
            close = text.find("]", i + 2 + (text[i + 1 : i + 2] == "!"))
            end = close + 1 if close > 0 else end
            # An unclosed bracket is a plain character for fnmatch.
            tokens.append(text[i:end])
        else:
            tokens.append(text[i])
        i = end
    plain = [len(t) == 1 and t not in "*?" for t in tokens]
    first = plain.index(False) if False in plain else len(tokens)
    last = len(tokens) - plain[::-1].index(False) if False in plain else 0
    return _Pattern(text, tuple(tokens), loops, "".join(tokens[:first]), "".join(tokens[last:]))


def _alphabet(patterns: tuple[_Pattern, ...]) -> list[str]:
    """One character of every kind that the patterns tell apart, those that names are made of first."""
    mentioned = {c for p in patterns for t in p.tokens if t != "*" for c in t}
    edges = {chr(ord(c) + d) for c in mentioned for d in (-1, 1) if 0 < ord(c) + d < 0x10FFFF}
    other = next(c for c in (*_PLAIN, *map(chr, range(0x4E00, 0x5000))) if c not in mentioned)
    order = {c: n for n, c in enumerate(_PLAIN)}
    kinds: dict[tuple[bool, ...], str] = {}
    tests = sorted({t for p in patterns for t in p.tokens if t != "*"})
    for char in sorted(mentioned | edges | {other}, key=lambda c: (order.get(c, 99), c)):
        kinds.setdefault(tuple(_accepts(t, char) for t in tests), char)
    return list(kinds.values())


def _apart(a: _Pattern, b: _Pattern) -> bool:
    """A quick sign that no name matches both; not seeing one means nothing."""
    n, m = min(len(a.head), len(b.head)), min(len(a.tail), len(b.tail))
    return a.head[:n] != b.head[:n] or bool(m and a.tail[-m:] != b.tail[-m:])


@cache
def _samples(pattern: _Pattern) -> tuple[str, ...]:
    """Names that the pattern matches, the likely ones first."""
    brackets = {t for t in pattern.tokens if len(t) > 1}
    alphabet = _alphabet((pattern,)) if brackets else []
    found = {t: next((c for c in alphabet if _accepts(t, c)), "") for t in brackets}
    out = []
    for star in ("1", "", "x", "0a", "zq"):
        for one in ("1", "x", "z"):
            fill = {"*": star, "?": one, **found}
            out.append("".join([fill.get(t, t) for t in pattern.tokens]))
    return tuple(dict.fromkeys(out))


def example(wanted: tuple[str, ...], unwanted: tuple[str, ...], empty: bool = True) -> str | None:
    """A name that matches all of ``wanted`` and none of ``unwanted``, or ``None`` if there is none.

    Raises :class:`Undecided` when the automata have too many states together.
    """
    yes = tuple(_cut(p) for p in wanted)
    no = [_cut(p) for p in unwanted]
    for n, a in enumerate(yes):
        if any(_apart(a, b) for b in yes[n + 1 :]):
            return None
        no = [b for b in no if not _apart(a, b)]
    for name in [n for p in yes for n in _samples(p)] or _USUAL:
        if (name or empty) and all(_regex(p.text).match(name) for p in yes):
            if not any(_regex(p.text).match(name) for p in no):
                return name
            if len(yes) == 1 and yes[0].literal:
                return None
    return _search(yes, tuple(no), empty)


def _search(yes: tuple[_Pattern, ...], no: tuple[_Pattern, ...], empty: bool) -> str | None:
    """The shortest such name, by breadth-first search over the states of all automata."""
    patterns = yes + no
    alphabet = _alphabet(patterns)
    start = tuple(p.closure(1) for p in patterns)
    seen, queue = {start}, deque([(start, "")])
    count = len(yes)
    while queue:
        state, name = queue.popleft()
        ends = [p.accepts(s) for p, s in zip(patterns, state, strict=True)]
        if all(ends[:count]) and not any(ends[count:]) and (name or empty):
            return name
        for char in alphabet:
            after = tuple(p.step(s, char) for p, s in zip(patterns, state, strict=True))
            if after not in seen and all(after[:count]):
                seen.add(after)
                queue.append((after, name + char))
        if len(seen) > MAX_STATES:
            raise Undecided("the name patterns together are too many to compare")
    return None
