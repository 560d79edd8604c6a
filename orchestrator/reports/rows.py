# SPDX-License-Identifier: Apache-2.0
"""Reports as text for other programs and for pull requests: CSV, Markdown and JUnit."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from orchestrator.documents.findings import Finding, Report, ReportHost
from orchestrator.reports.collected import needs_somebody
from orchestrator.reports.grouped import groups
from orchestrator.reports.junit import document, failure, suite, testcase
from orchestrator.reports.markdown import table
from orchestrator.reports.text import one_line, some

COLUMNS = (
    "host", "state", "why", "arch", "hypervisor", "platform", "strategy", "rule", "where", "kernel", "proof", "tags", "seen",
    "since", "run", "errors", "warnings", "findings",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_lines(hosts: Iterable[ReportHost]) -> Iterator[str]:
    """A head and one line for each host (RFC 4180), one at a time."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for h in hosts:
        levels = [f.level for f in h.findings]
        last = (levels.count("error"), levels.count("warning"), " ".join(sorted({f.id for f in h.findings})))
        fields = [getattr(h, c) for c in COLUMNS[:-3]]
        writer.writerow([cell(" ".join(x) if isinstance(x, list) else str(x)) for x in (*fields, *last)])
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def cell(text: str) -> str:
    """Nothing that a host says of itself may be a formula where a spreadsheet opens it."""
    text = one_line(text, 1000)
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown(report: Report) -> bytes:
    """States, platforms and findings, for a pull request. What hosts say is text and never markup."""
    total = len(report.hosts)
    bad = sum(needs_somebody(h) for h in report.hosts)
    out = ["## kdump", "", f"{total:,} hosts, {bad:,} of them need somebody.", ""]
    out += [*table(("state", "hosts"), [(s, f"{n:,}") for s, n in report.states.items()]), ""]
    cells: dict[tuple[str, str, str], int] = {}
    for h in report.hosts:
        key = (h.arch or "?", h.hypervisor or "?", h.strategy or "none")
        cells[key] = cells.get(key, 0) + 1
    rows = [(escaped(a), escaped(v), escaped(s), f"{n:,}") for (a, v, s), n in sorted(cells.items())]
    out += [*table(("arch", "hypervisor", "strategy", "hosts"), rows), ""]
    found = groups(report.hosts)
    if found:
        out += ["### Findings", ""]
        for g in found:
            f = g.first
            where = f" `{_code(f.where)}`" if f.where else ""
            out.append(f"- **{f.level}** `{_code(f.id)}`{where}: {escaped(f.what)}: {escaped(some(g.hosts, 5))}")
            out += [f"  - {label}: {escaped(text)}" for label, text in (("why", g.why), ("fix", f.fix)) if text]
    return ("\n".join(out).rstrip() + "\n").encode()


def escaped(text: str) -> str:
    quoted = html.escape(one_line(text, 300), quote=False)
    return "".join("\\" + c if c in "\\`*_[]#|~@!" else c for c in quoted)


def _code(text: str) -> str:
    return one_line(text, 200).replace("`", "'").replace("|", "¦")


def junit(report: Report) -> bytes:
    """A suite for each platform, a case for each host: it fails where an error was found, and is skipped where nothing is asked."""
    root = ET.Element("testsuites", name="kdo report")
    platforms: dict[str, list[ReportHost]] = {}
    for h in report.hosts:
        platforms.setdefault(f"{h.arch or 'unknown'} {h.hypervisor or 'unknown'}", []).append(h)
    for name, hosts in sorted(platforms.items()):
        results = [(h, _result(h)) for h in hosts]
        kinds = [kind for _, (kind, _) in results]
        node = suite(root, name, len(hosts), kinds.count("failure"), kinds.count("skipped"), kinds.count("error"))
        for h, (kind, found) in results:
            case = testcase(node, name, h.host)
            told = "\n".join(_told(f) for f in found)
            if kind == "skipped":
                ET.SubElement(case, "skipped", message=one_line(f"{h.state}: {h.why}", 500))
            elif kind:
                failure(case, one_line(f"{h.state}: {h.why}", 500), told or h.why, kind)
    return document(root)


def _result(h: ReportHost) -> tuple[str, list[Finding]]:
    found = [f for f in h.findings if f.level != "note"]
    if h.state in ("waived", "unsupported"):
        return "skipped", []
    if not needs_somebody(h):
        return "", []
    return ("error" if h.state == "unreachable" else "failure"), found


def _told(f: Finding) -> str:
    lines = [
        f"{f.level}: {f.what} [{f.id}]",
        *(f"  {k}: {v}" for k, v in (("where", f.where), ("why", f.why), ("fix", f.fix)) if v),
    ]
    return "\n".join(lines)
