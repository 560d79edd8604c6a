# SPDX-License-Identifier: Apache-2.0
"""Controls as a table for people, and as JSON, CSV, JUnit and Markdown for everybody else."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from xml.etree import ElementTree as ET

from orchestrator.documents.base import pretty
from orchestrator.documents.controls import ControlHost, ControlReport, ControlResult
from orchestrator.reports.junit import document, failure, suite, testcase
from orchestrator.reports.markdown import table as markdown_table
from orchestrator.reports.rows import cell, escaped
from orchestrator.reports.text import line, one_line, some, table

COLUMNS = ("control", "host", "result", "why", "fix", "failing", "arch", "hypervisor", "tags", "seen")
_RULES = 6  # that are named in the table
_STYLES = {"fail": "red", "unknown": "yellow", "waived": "yellow", "not applicable": "dim"}


def bad(report: ControlReport) -> bool:
    """Whether some host fails a control, or cannot be answered for."""
    return any(c.counts.get("fail") or c.counts.get("unknown") for c in report.controls)


def show(report: ControlReport, names: int = 5) -> None:
    """The numbers, and for each control the reasons with their hosts: the same reason once."""
    head = ("CONTROL", "PASS", "FAIL", "WAIVED", "NOT APPLICABLE", "UNKNOWN")
    keys = ("pass", "fail", "waived", "not applicable", "unknown")
    table(head, [(c.id, *(f"{c.counts.get(k, 0):,}" for k in keys)) for c in report.controls])
    for control in report.controls:
        line()
        line(f"{control.id}: {control.title}", "bold")
        if control.rules:
            more = f", and {len(control.rules) - _RULES} more" if len(control.rules) > _RULES else ""
            line(f"  named by {', '.join(control.rules[:_RULES])}{more}", "dim")
        for result, why, fix, hosts in reasons(control):
            line(f"  {result}: {some(hosts, names)}", _STYLES.get(result, ""))
            if why:
                line(f"    {one_line(why, 300)}")
            if fix:
                line(f"    fix: {one_line(fix, 200)}")


def reasons(control: ControlResult) -> Iterator[tuple[str, str, str, list[str]]]:
    """Result, reason, what to do, hosts; what fails first. Hosts that just pass are one group."""
    order = ("fail", "unknown", "waived", "not applicable", "pass")
    found: dict[tuple[str, str, str], list[str]] = {}
    for h in control.hosts:
        found.setdefault((h.result, h.why, h.fix), []).append(h.host)
    for (result, why, fix), hosts in sorted(found.items(), key=lambda x: (order.index(x[0][0]), -len(x[1]), x[1][0])):
        yield result, why, fix, hosts


def as_csv(report: ControlReport) -> bytes:
    """A head and one line for each control and host (RFC 4180); nothing that a host says is a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for control in report.controls:
        for h in control.hosts:
            row = (
                control.id,
                h.host,
                h.result,
                h.why,
                h.fix,
                " ".join(h.failing),
                h.arch,
                h.hypervisor,
                " ".join(h.tags),
            )
            writer.writerow([cell(x) for x in row])
    return buffer.getvalue().encode()


def as_junit(report: ControlReport) -> bytes:
    """A suite for each control, a case for each host: it fails, is an error where nothing could be said, or is skipped."""
    root = ET.Element("testsuites", name="kdo report --control")
    for control in report.controls:
        kinds = [_kind(h) for h in control.hosts]
        counts = (kinds.count("failure"), kinds.count("skipped"), kinds.count("error"))
        node = suite(root, control.id, len(kinds), *counts)
        for h, kind in zip(control.hosts, kinds, strict=True):
            case = testcase(node, control.id, h.host)
            if kind == "skipped":
                ET.SubElement(case, "skipped", message=one_line(f"{h.result}: {h.why}", 500))
            elif kind:
                failure(case, one_line(f"{h.result}: {h.why}", 500), f"{h.why}\nfix: {h.fix}" if h.fix else h.why, kind)
    return document(root)


def _kind(h: ControlHost) -> str:
    return {"fail": "failure", "unknown": "error", "pass": ""}.get(h.result, "skipped")


def as_markdown(report: ControlReport) -> bytes:
    """Numbers and reasons, for a merge request or a ticket. What hosts say is text and never markup."""
    keys = ("pass", "fail", "waived", "not applicable", "unknown")
    rows = [(f"`{c.id}`", *(f"{c.counts.get(k, 0):,}" for k in keys)) for c in report.controls]
    out = ["## kdump: controls", "", *markdown_table(("control", *keys), rows)]
    for control in report.controls:
        out += ["", f"### {control.id}", "", f"{control.title}."]
        if control.rules:
            out += ["", f"Named by {escaped('; '.join(control.rules))}."]
        out.append("")
        for result, why, fix, hosts in reasons(control):
            told = f": {escaped(why)}" if why else ""
            todo = f" ({escaped(fix)})" if fix else ""
            out.append(f"- **{result}** {escaped(some(hosts, 5))}{told}{todo}")
    return ("\n".join(out).rstrip() + "\n").encode()


#: Form → the bytes of it. The table is :func:`show`.
FORMS: dict[str, Callable[[ControlReport], bytes]] = {
    "json": pretty,
    "csv": as_csv,
    "junit": as_junit,
    "markdown": as_markdown,
}
