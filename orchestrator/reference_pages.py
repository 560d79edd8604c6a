# SPDX-License-Identifier: Apache-2.0
"""Pages of the documentation that are made from data and types, whole or in part.

In part: what stands between two comments of a page is generated, the rest is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.knowledge.controls import Control, controls
from orchestrator.knowledge.load import Knowledge, Row, knowledge
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


def platforms() -> str:
    """What is known of each platform: every row and guard, in the order in which they are tried."""
    known = knowledge()
    out = [
        "# What is known of each platform",
        "",
        "<!-- generated from policies/knowledge/strategies.yaml by `make docs`; do not edit -->",
        "",
        "The first row that matches a host says what its kernel offers; guards add to it whatever the row. `kdo explain HOST` shows the row",
        "that counts for a host. [Where the knowledge comes from](explanation/knowledge.md) says how it is sourced.",
        "",
        *table(("id", "platform", "relies on", "certainty"), [_line(r) for r in known.rows]),
        "",
    ]
    for row in known.rows:
        out += _row(row, known)
    out += ["## Guards", ""]
    for guard in known.guards:
        out += _row(guard, known, level=3)
    return "\n".join(out).rstrip() + "\n"


def _line(row: Row) -> tuple[str, str, str, str]:
    relied = ", ".join(f"`{x}`" for x in row.data.get("recommend", ())) or ("refused" if "refuse" in row.data else "-")
    return f"[{row.id}](#{row.id.lower()})", str(row.data["title"]), relied, str(row.data.get("certainty", ""))


def _row(row: Row, known: Knowledge, level: int = 2) -> list[str]:
    data = row.data
    out = [
        f"{'#' * level} {row.id}",
        "",
        f"{_sentence(data.get('title', row.id))} Hosts: `{_compact(data['match'])}`",
        "",
    ]
    if "refuse" in data:
        refuse = data["refuse"]
        what = str(refuse["what"]).replace("{role}", "container, WSL or user-mode Linux")
        out += [f"Refused: {what}. {_sentence(refuse['why'])} What to do: {refuse['fix']}.", ""]
    rows = [
        (f"`{name}`", layer["state"], layer["why"], "; ".join(known.sources[s].title for s in layer.get("sources", ())))
        for name, layer in data.get("layers", {}).items()
    ]
    if rows:
        out += [*table(("layer", "is", "why", "source"), rows), ""]
    if data.get("sources"):
        out += ["Sources: " + "; ".join(known.sources[s].title for s in data["sources"]) + ".", ""]
    for note in data.get("notes", ()):
        out += [f"Note: {note}.", ""]
    return out


def _compact(match: Mapping[str, Any]) -> str:
    return json.dumps(match, ensure_ascii=False).replace('"', "")


def documents(schemas: Mapping[str, str]) -> str:
    """The documents that cross a boundary, from their schemas (path → text)."""
    out = [
        "# Documents",
        "",
        "<!-- generated from the schemas by `make docs`; do not edit -->",
        "",
        "Everything that one part gives another, or that is kept, is a JSON document with a schema. Each carries `format_version`: ignore fields",
        "that you do not know, and refuse a major number that you do not know.",
        "",
    ]
    for path, text in sorted(schemas.items()):
        schema = json.loads(text)
        top = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        name = path.rsplit("/", 1)[1].removesuffix(".schema.json")
        told = " ".join(str(top.get("description", "")).split())
        fields = ", ".join(f"`{key}`" for key in top.get("properties", {}))
        out += [
            f"## {name}",
            "",
            told,
            "",
            f"Fields: {fields}. All of them, with their types: [{path}](../{path}).",
            "",
        ]
    return "\n".join(out).rstrip() + "\n"
