# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file, in a real Chromium: nothing outside of it, nothing that hosts say becomes markup, usable by everybody."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec
import pytest

from orchestrator.documents.decision import Layer
from orchestrator.documents.findings import Detail, ReportHost
from orchestrator.documents.plan import Change
from orchestrator.documents.verdict import Check
from orchestrator.reports.collected import report
from orchestrator.reports.page import Around, page
from orchestrator.store.hosts import STATES
from tests.reports.browser import CHROMIUM, browser, faults
from tests.reports.test_report import DUE, LOADED, WAIVED

AT = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
EVIL = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}<!--\u2028'
DETAIL = Detail(
    layers=[Layer(name="kdump_reset", state="on", why="arm64 has no crash-shutdown hook")],
    checks=[Check(id="capture-loaded", title="a capture kernel is loaded", verdict="fail", evidence="0 in kexec_crash_loaded")],
    changes=[Change(kind="file", what="edit /etc/default/kdump-tools", why="the policy wants it", diff="--- a\n+++ b\n-old\n+new\n")],
)  # fmt: skip
BESIDE = Around(
    runs=[{"id": "20261124-0300-aaaa", "kind": "apply", "state": "held", "who": "sre@ops", "policy": "default", "hosts": 3000,
           "created": "2026-11-24T02:00:00.000Z", "ended": None,
           "waves": [{"number": 0, "name": "canary", "state": "done", "hosts": 1, "failed": 0, "started": "2026-11-24T02:00:01.000Z",
                      "ended": "2026-11-24T02:01:00.000Z"},
                     {"number": 1, "name": "", "state": "held", "hosts": 30, "failed": 3, "started": "2026-11-24T02:01:00.000Z", "ended": None},
                     {"number": 2, "name": "", "state": "waiting", "hosts": 300, "failed": 0, "started": None, "ended": None}]}],
    waivers=[{"id": "W1", "about": "dump-room", "approver": "lead", "expires": "2026-01-01", "hosts": 3}],
)  # fmt: skip


def fleet(count: int):
    states = list(STATES)
    hosts = []
    for n in range(count):
        state = states[n % len(states)]
        findings = {"failed": [LOADED, DUE], "drift": [DUE], "waived": [WAIVED]}.get(state, [])
        arch, hypervisor = ("aarch64", "hyperv") if n % 7 == 0 else ("x86_64", "kvm")
        hosts.append(ReportHost(
            host=f"web{n:05d}", state=state, arch=arch, hypervisor=hypervisor, platform=f"{arch} {hypervisor} guest", strategy="kdump_reset",
            kernel=f"6.1.0-{n % 9}", tags=["zone=a"], since="2026-11-23T03:00:00.000Z", findings=findings, rule="r", where="p.yaml:7:3",
            detail=DETAIL,
        ))  # fmt: skip
    odd = msgspec.structs.replace(hosts[0], host="zz" + EVIL, why=EVIL, kernel=EVIL, platform=EVIL, arch=EVIL,
                                  findings=[msgspec.structs.replace(LOADED, what=EVIL, why=EVIL)])  # fmt: skip
    return report([*hosts, odd], EVIL)


def test_the_file_needs_nothing_else_and_says_the_same_again():
    made = page(fleet(50), AT, BESIDE)
    text = made.decode()
    assert made == page(fleet(50), AT, BESIDE)
    assert not re.search(r"<(link|img|iframe|object)\b|@import|url\(", text)
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert "default-src 'none'" in text and "49" not in re.findall(r"<title>.*?</title>", text)[0]


def test_ten_thousand_hosts_make_a_file_that_can_be_mailed():
    assert len(page(fleet(10_000), AT)) < 3_000_000


@pytest.fixture(params=["light", "dark"])
def opened(request, tmp_path):
    file = tmp_path / "report.html"
    file.write_bytes(page(fleet(10_000), AT, BESIDE))
    with browser(color_scheme=request.param, viewport={"width": 1280, "height": 900}) as (tab, said, asked):
        tab.goto(file.as_uri())
        yield tab, said, asked
        assert said == [] and {a.partition("#")[0] for a in asked} == {file.as_uri()}
        assert tab.title().startswith("kdump: 10,001 hosts")


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_in_a_browser(opened):
    from playwright.sync_api import expect

    tab, _, _ = opened
    count = tab.locator("#count")
    rows = tab.locator("#list tbody > tr")
    expect(count).to_have_text("10,001 of 10,001 hosts")
    expect(rows).to_have_count(200)  # the others come when they are asked for
    tab.locator("#more").click()
    expect(rows).to_have_count(400)
    # States, platforms and findings are filters, and say so.
    tile = tab.locator("[data-state=failed]")
    tile.click()
    expect(tile).to_have_attribute("aria-pressed", "true")
    expect(count).to_have_text("1,001 of 10,001 hosts")
    tab.locator("[data-arch=aarch64][data-hypervisor=hyperv]").click()
    expect(count).to_have_text("143 of 10,001 hosts")
    tab.locator("#clear").click()
    tab.locator("summary", has_text="load the capture kernel").first.click()
    tab.locator("[data-finding=due-reload]").first.click()
    expect(count).to_have_text("2,000 of 10,001 hosts, finding due-reload")
    tab.locator("#clear").click()
    # Search, in every word; then the host with the keyboard alone.
    tab.locator("#search").fill("web00420 6.1.0")
    expect(count).to_have_text("1 of 10,001 hosts")
    tab.locator("#list tbody button").first.focus()
    tab.keyboard.press("Enter")
    host = tab.locator("tr.host")
    for text in (
        "a capture kernel is loaded [capture-loaded]",
        "0 in kexec_crash_loaded",
        "arm64 has no crash-shutdown hook",
        "+new",
        "p.yaml:7:3",
    ):
        expect(host).to_contain_text(text)
    assert tab.url.endswith("#host=web00420")
    assert faults(tab) == []
    tab.reload()
    expect(tab.locator("tr.host")).to_be_visible()
    # What a host says is text.
    tab.locator("#search").fill("owned")
    expect(rows.first).to_contain_text("zz")
    tab.locator("#list tbody button").first.click()
    expect(tab.locator("tr.host")).to_contain_text("<img src=x onerror=alert(1)>{{ 7*7 }}")
    assert tab.locator("img").count() == 0
    # Sorting, runs and waivers.
    tab.locator("#clear").click()
    tab.locator("[data-sort=kernel]").click()
    expect(tab.locator("#list th[aria-sort=ascending]")).to_have_text("kernel")
    expect(tab.locator(".runs .line i")).to_have_count(2)
    expect(tab.locator("section", has=tab.locator("#h-waivers"))).to_contain_text("expired")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_without_script_the_summary_is_there(tmp_path):
    file = tmp_path / "report.html"
    file.write_bytes(page(fleet(100), AT, BESIDE))
    with browser(java_script_enabled=False) as (tab, _, _):
        tab.goto(file.as_uri())
        text = tab.inner_text("body")
        assert "a capture kernel is loaded" in text and "kdo report --format csv" in text and "W1" in text
