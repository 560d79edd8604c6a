# SPDX-License-Identifier: Apache-2.0
"""What tests of the documentation read from Markdown: links, anchors and fenced blocks, as a forge would."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its first line after the fence, its text, its line in the page, and the comments right before it."""

    info: str
    text: str
    line: int
    marks: tuple[str, ...] = ()


def prose(text: str) -> str:
    """The page without its fenced blocks and code."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def links(text: str) -> list[str]:
    """Targets of all links and pictures."""
    return _LINK.findall(prose(text))


def anchors(text: str) -> Counter[str]:
    """Anchors of the headings as a forge makes them, with how often each would be made."""
    found: Counter[str] = Counter()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        found[re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")] += 1
    return found


def blocks(text: str) -> list[Block]:
    """All fenced blocks in their order, each with the HTML comments that stand directly before it."""
    out = []
    for found in _FENCE.finditer(text):
        before = text[: found.start()].rstrip("\n")
        marks: list[str] = []
        while comment := re.search(r"(?:^|\n)<!-- (.*?) -->$", before):
            marks.insert(0, comment[1])
            before = before[: comment.start()]
        out.append(Block(found[1].strip(), found[2], text.count("\n", 0, found.start()) + 1, tuple(marks)))
    return out
