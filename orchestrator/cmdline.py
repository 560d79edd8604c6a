# SPDX-License-Identifier: Apache-2.0
"""Kernel command lines as ordered lists of arguments, with the kernel's own quoting rule.

A double quote anywhere in a word protects spaces up to the next double quote (``next_arg()`` in lib/cmdline.c).
Text outside the arguments that are added or removed is kept as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from orchestrator.errors import InvalidInput

#: What an argument made by us may consist of: it goes into files that a shell reads.
SAFE_ARGUMENT = re.compile(r"[A-Za-z0-9_.,:=@/+%\-]+\Z")


def split(cmdline: str) -> list[str]:
    """Words of a command line. An unterminated quote runs to the end, as in the kernel."""
    if '"' not in cmdline:
        return cmdline.split()
    words: list[str] = []
    word: list[str] = []
    quoted = False
    for char in cmdline:
        if char == '"':
            quoted = not quoted
            word.append(char)
        elif char.isspace() and not quoted:
            if word:
                words.append("".join(word))
                word = []
        else:
            word.append(char)
    if word:
        words.append("".join(word))
    return words


def join(words: Iterable[str]) -> str:
    """One line from words."""
    return " ".join(words)


@lru_cache(maxsize=1 << 16)
def pair(argument: str) -> tuple[str, str | None]:
    """Name and value of one word as ``next_arg()`` in lib/cmdline.c takes them apart; ``None`` for a bare flag.

    Quotes around the whole word or the whole value are dropped, others stay. ``-`` and ``_`` in names are the same.
    """
    quoted = argument.startswith('"')
    text = argument[1:] if quoted else argument
    closed = False  # the last character was a quote and has been dropped
    equals = text.find("=", 1)
    name, value = (text, None) if equals < 0 else (text[:equals], text[equals + 1 :])
    if value is not None and value.startswith('"'):
        value = value[1:]
        closed = text.endswith('"')
        value = value[:-1] if closed and value else value
    if quoted and not closed and text.endswith('"'):
        if value is None:
            name = name[:-1]
        else:
            value = value[:-1]
    return name.replace("-", "_"), value


def key_of(argument: str) -> str:
    """Name of an argument."""
    return pair(argument)[0]


def values(cmdline: str | Sequence[str], key: str) -> list[str]:
    """Every value of ``key`` in order (``""`` for a bare flag)."""
    words = split(cmdline) if isinstance(cmdline, str) else cmdline
    wanted = key.replace("-", "_")
    found = [pair(word) for word in words]
    return [value or "" for name, value in found if name == wanted]


def last(cmdline: str | Sequence[str], key: str) -> str | None:
    """The value that counts when a key stands several times (``None`` = not there)."""
    found = values(cmdline, key)
    return found[-1] if found else None


def truthy(value: str | None) -> bool | None:
    """A boolean kernel parameter as ``kstrtobool`` reads it; a bare flag is true; ``None`` stays ``None``."""
    if value is None:
        return None
    if value == "" or value[:1] in "yYtT1" or value[:2].lower() == "on":
        return True
    if value[:1] in "nNfF0" or value[:2].lower() == "of":
        return False
    return None


def ensure(words: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """The words with each wanted argument present exactly once.

    An argument with the same key is replaced where its first occurrence stood and its other occurrences go; a key that
    takes lists (``module_blacklist``, ``cgroup_disable``) is replaced too: the caller merges lists beforehand.
    """
    out = list(words)
    for argument in wanted:
        key = key_of(argument)
        places = [i for i, word in enumerate(out) if key_of(word) == key]
        if not places:
            out.append(argument)
            continue
        out[places[0]] = argument
        for i in reversed(places[1:]):
            del out[i]
    return out


def without(words: Sequence[str], keys: Iterable[str]) -> list[str]:
    """The words without any argument whose key is named; ``key=value`` removes just that value."""
    names = {k.replace("-", "_") for k in keys if "=" not in k}
    exact = {k for k in keys if "=" in k}
    return [w for w in words if key_of(w) not in names and w not in exact]


def check_safe(argument: str, *, where: str = "") -> str:
    """The argument itself, if it may be written into a file that a shell reads."""
    if not SAFE_ARGUMENT.match(argument) or len(argument) > 512:
        raise InvalidInput(
            f"{argument[:80]!r} cannot be used as a kernel argument",
            where=where,
            why="it would be written into files that a shell reads, so only letters, digits and _ . , : = @ / + % - are allowed",
            fix="use an argument without other characters",
        )
    return argument
