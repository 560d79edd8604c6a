# SPDX-License-Identifier: Apache-2.0
"""`kdo report`: every form says the same of the same hosts, for readers that are programs, and what hosts say stays text."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import redirect_stdout
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.documents.base import pretty
from orchestrator.documents.findings import Finding, ReportHost
from orchestrator.errors import InvalidInput
from orchestrator.reports import rows
from orchestrator.reports.collected import report, rule_of, saved
from orchestrator.reports.grouped import groups
from orchestrator.reports.prometheus import MOST, Metrics
from orchestrator.reports.sarif import sarif
from orchestrator.reports.text import line

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
LOADED = Finding(
    id="capture-loaded",
    level="error",
    what="a capture kernel is loaded",
    why="it is not",
    fix="kdo apply",
    where="p.yaml:7:3",
)
DUE = Finding(id="due-reload", level="warning", what="load the capture kernel", where="p.yaml:7:3")
WAIVED = Finding(id="dump-room", level="note", what="room for a dump", why="(W1: until 2027-01-01)", where="p.yaml:9:5")


def host(number: int, state: str = "compliant", *findings: Finding, **more: str) -> ReportHost:
    given = {
        "arch": "x86_64",
        "hypervisor": "kvm",
        "strategy": "kdump_reset",
        "seen": "2026-11-23T03:00:00.000Z",
    } | more
    return ReportHost(host=f"web{number}", state=state, findings=list(findings), **given)


FLEET = report(
    [host(1), host(2, "failed", LOADED, DUE, why="not loaded"), host(3, "failed", LOADED, why="not loaded"),
     host(4, "waived", WAIVED), host(5, "unreachable", why="no route", arch="aarch64", hypervisor="none"), host(6, "unsupported")],
    "test",
)  # fmt: skip


def test_the_same_findings_are_told_once():
    told = [(g.first.id, g.hosts) for g in groups(FLEET.hosts)]
    assert told == [("capture-loaded", ["web2", "web3"]), ("due-reload", ["web2"]), ("dump-room", ["web4"])]
    changed = [msgspec.structs.replace(DUE, what=f"change {x}", why=w) for x, w in (("a", "x"), ("b", "y"), ("b", "z"))]
    mixed = [host(n, "drift", finding) for n, finding in enumerate(changed, 1)]
    told = [(g.first.what, g.hosts, g.why) for g in groups(mixed)]
    assert told == [("change b", ["web2", "web3"], "y (on web2)"), ("change a", ["web1"], "x")]
    assert rule_of("x86-kvm (policies/a b.yaml:12:5)") == ("x86-kvm", "policies/a b.yaml:12:5")
    assert rule_of("kept") == ("kept", "")


def test_json_is_read_back():
    assert saved(pretty(FLEET), "x") == FLEET.hosts
    assert list(FLEET.states) == ["failed", "unreachable", "unsupported", "waived", "compliant"]


def test_sarif_points_at_the_lines_of_the_policy(monkeypatch, tmp_path):
    (run,) = json.loads(sarif(FLEET))["runs"]
    first, second, third = run["results"]
    assert [run["tool"]["driver"]["rules"][r["ruleIndex"]]["id"] for r in run["results"]] == [
        r["ruleId"] for r in run["results"]
    ]
    place = first["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "p.yaml"}, "region": {"startLine": 7, "startColumn": 3}}
    assert first["level"] == "error" and first["occurrenceCount"] == 2 and "web2, web3" in first["message"]["text"]
    assert third["suppressions"][0]["status"] == "accepted" and "suppressions" not in second
    # A line that moves is the same alert: scanners would close and open it again otherwise.
    moved = report([host(2, "failed", msgspec.structs.replace(LOADED, where="p.yaml:99:1"))], "test")
    (other,) = json.loads(sarif(moved))["runs"][0]["results"]
    assert other["partialFingerprints"] == first["partialFingerprints"] != second["partialFingerprints"]
    monkeypatch.chdir(tmp_path)
    for where, uri in (
        (f"{tmp_path}/a b/p.yaml:1:1", "a%20b/p.yaml"),
        ("/elsewhere/p.yaml:1:1", "file:///elsewhere/p.yaml"),
    ):
        (result,) = json.loads(sarif(report([host(1, "failed", msgspec.structs.replace(LOADED, where=where))], "")))[
            "runs"
        ][0]["results"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri
    (result,) = json.loads(
        sarif(report([host(1, "failed", msgspec.structs.replace(LOADED, where="knowledge/x.yaml#G7"))], ""))
    )["runs"][0]["results"]
    assert result["locations"][0]["logicalLocations"][0]["name"] == "knowledge/x.yaml#G7"


def test_junit_fails_where_somebody_is_needed():
    root = ET.fromstring(rows.junit(FLEET))
    assert dict(root.attrib) == {"name": "kdo report", "tests": "6", "failures": "2", "errors": "1", "skipped": "2"}
    cases = {c.get("name"): c for c in root.iter("testcase")}
    assert "p.yaml:7:3" in cases["web2"].find("failure").text and cases["web5"].find("error") is not None
    assert len(cases["web1"]) == 0


def test_markdown_names_numbers_and_findings():
    text = rows.markdown(FLEET).decode()
    assert "6 hosts, 3 of them need somebody" in text and "| failed | 2 |" in text
    assert "**error** `capture-loaded` `p.yaml:7:3`: a capture kernel is loaded: web2, web3" in text


def metrics(hosts):
    families = text_string_to_metric_families(Metrics().add(hosts).text(AT).decode())
    return {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}


def test_metrics_are_read_by_prometheus_own_parser():
    found = metrics(FLEET.hosts)
    assert found[("kdo_hosts", ("state", "failed"))] == 2 and found[("kdo_hosts", ("state", "drift"))] == 0
    assert found[("kdo_finding_hosts", ("finding", "capture-loaded"), ("level", "error"))] == 2
    assert found[("kdo_oldest_answer_timestamp_seconds",)] == AT.timestamp() - 86400
    assert found[("kdo_report_timestamp_seconds",)] == AT.timestamp()


def test_hosts_cannot_flood_a_server_with_series():
    found = metrics([host(n, arch=f'"odd\n{n}\\') for n in range(1000)])
    series = [k for k in found if k[0] == "kdo_platform_hosts"]
    assert len(series) == MOST + 1 and sum(found[k] for k in series) == 1000
    assert found[("kdo_platform_hosts", ("arch", "other"), ("hypervisor", "other"), ("state", "other"))] == 1000 - MOST


@given(st.text(max_size=60))
def test_what_a_host_says_is_text_in_every_form(text):
    finding = Finding(id="c", level="error", what=text, why=text, fix=text)
    fleet = report([host(1, "failed", finding, why=text, platform=text, kernel=text, arch=text)], "test")
    ET.fromstring(rows.junit(fleet))
    json.loads(sarif(fleet))
    (row,) = csv.DictReader(io.StringIO("".join(rows.csv_lines(fleet.hosts))))
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())
    assert metrics(fleet.hosts)[("kdo_hosts", ("state", "failed"))] == 1
    markdown = rows.markdown(fleet).decode()
    assert not re.search(r"<[a-zA-Z/!]", markdown) and len(markdown.splitlines()) < 30


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"hosts": [1]}', '{"hosts": [{"checks": 1}]}', '{"kind": "Plan", "hosts": [{}]}',
                                  '{"kind": "Report", "format_version": "2.0", "hosts": []}', "\udcff"])  # fmt: skip
def test_other_documents_are_refused(text):
    with pytest.raises(InvalidInput) as refused:
        saved(text.encode("utf-8", "surrogateescape"), "given.json")
    assert refused.value.problems[0].where == "given.json" and refused.value.problems[0].fix


def test_a_line_goes_to_the_stdout_of_the_moment():
    first, second = io.StringIO(), io.StringIO()
    for out in (first, second):
        with redirect_stdout(out):
            line("a host")
        if out is first:
            out.close()
    assert second.getvalue() == "a host\n"
