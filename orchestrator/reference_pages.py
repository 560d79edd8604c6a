# SPDX-License-Identifier: Apache-2.0
"""Pages of the documentation that are made from data in part: what stands between two comments is generated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from orchestrator.knowledge.controls import Control, controls
from orchestrator.reports.markdown import table

_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_WANTS = {"plain": "", "masked": "the service masked", "documented": "off, unless the need is documented"}


def filled(text: str, parts: Mapping[str, str]) -> str:
    """The page with its generated parts put in. Every part must have its place, and every place its part."""
    places = [name for _, name, _ in _PART.findall(text)]
    if sorted(places) != sorted(parts):
        raise ValueError(f"the page has places for {places}, there are parts for {list(parts)}")
    return _PART.sub(lambda m: f"{m[1]}\n{parts[m[2]].strip()}\n\n{m[3]}", text)


def compliance(docs: Path) -> str | None:
    """docs/compliance.md, or ``None`` where there is no such page (an installed package)."""
    page = docs / "compliance.md"
    if not page.is_file():
        return None
    found = controls()
    sources = [f"- `{id}`: [{s.title}]({s.url}) ({s.checked})" for id, s in found.sources.items()]
    parts = {"controls": "\n\n".join(_control(c) for c in found.controls), "sources": "\n".join(sources)}
    return filled(page.read_text(encoding="utf-8"), parts)


def _sentence(text: str) -> str:
    """With a capital, unless it begins with the name of the tool."""
    return f"{text}." if text.startswith("kdo") else f"{text[0].upper()}{text[1:]}."


def _control(control: Control) -> str:
    out = [f"### {control.id}", "", f"{_sentence(control.title)} Why: {control.why}.", ""]
    if control.checks:
        out += ["Answered by " + ", ".join(f"`{c}`" for c in control.checks) + ".", ""]
    if control.service:
        out += [f"The service must be {control.service}, or not there.", ""]
    if control.proof:
        out += ["Answered by the crash tests on record: [crash-test](crash-test.md).", ""]
    out += [f"What to do: {control.fix}.", ""]
    if control.note:
        out += [_sentence(control.note), ""]
    if control.baselines:
        head = ("named by", "of", "rule", "other names", "severity", "wants besides", "source")
        rows = [
            (b.by, " ".join(x for x in (b.of, b.version) if x), f"`{b.rule}`", ", ".join(b.ids), b.severity, _WANTS[b.wants],
             ", ".join(f"`{s}`" for s in b.sources))
            for b in control.baselines
        ]  # fmt: skip
        out += [*table(head, rows), ""]
    if control.contradicts:
        out += ["Contradicts:", "", *(f"- `{c.id}`: {c.why}." for c in control.contradicts), ""]
    return "\n".join(out).strip()
