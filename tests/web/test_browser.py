# SPDX-License-Identifier: Apache-2.0
"""The dashboard in a real Chromium: pages, filters, drill-down, a run that goes on, nothing from elsewhere."""

from __future__ import annotations

import pytest

from orchestrator.store import runs
from orchestrator.store.store import Store
from tests.reports.browser import CHROMIUM, browser, faults
from tests.store.test_store import keep, later, seen
from tests.web.serving import TOKEN, fill, serving


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(tmp_path, scheme):
    from playwright.sync_api import expect

    url = str(tmp_path / "store.db")
    with Store(url) as store, serving(url, tmp_path) as server:
        run = fill(store)
        credentials = {"username": "me", "password": TOKEN}
        with browser(color_scheme=scheme, http_credentials=credentials, viewport={"width": 1280, "height": 900}) as (
            tab,
            said,
            asked,
        ):
            tab.goto(server.url + "/")
            expect(tab.locator("h1")).to_contain_text("5 hosts, 3 need somebody")
            expect(tab.locator("#live")).to_contain_text(f"apply {run}: 0 of 5 done")  # which came as an event
            assert faults(tab) == []
            # From a state to its hosts, to one of them.
            tab.locator("a.tile", has_text="drift").click()
            expect(tab.locator("#list tbody tr")).to_have_count(1)
            assert faults(tab) == []
            tab.get_by_role("link", name="a", exact=True).click()
            for text in ("crash_kexec_post_notifiers", "kvm-x86", "Evidence of the platform", "Due"):
                expect(tab.locator("main")).to_contain_text(text)
            assert faults(tab) == []
            # Search, order and the way back, with addresses that can be sent to somebody.
            tab.get_by_role("link", name="Hosts").click()
            tab.locator("#q").fill("onerror")
            tab.keyboard.press("Enter")
            expect(tab.locator("#list tbody tr")).to_have_count(1)
            expect(tab.locator("#list tbody tr")).to_contain_text("unreachable")
            assert "q=onerror" in tab.url and tab.locator("img").count() == 0
            tab.get_by_role("link", name="Show all").click()
            tab.get_by_role("link", name="host", exact=True).click()
            expect(tab.locator("#list tbody tr").first).to_contain_text("e")
            # A run that goes on while somebody looks.
            tab.goto(f"{server.url}/runs/{run}")
            assert faults(tab) == []
            expect(tab.locator("p > [data-is=done]")).to_have_text("0")
            runs.set_wave(store.database, run, 0, "running", later(61))
            keep(store, run, 62, seen("a", "compliant", {"n": 9}))
            expect(tab.locator("p > [data-is=done]")).to_have_text("1")
            expect(tab.locator("[data-wave='0'] [data-is=state]")).to_have_text("running")
            expect(tab.locator("[data-wave='0'] .progress")).to_have_attribute("aria-label", "1 of 1 hosts done")
            keep(store, run, 63, *(seen(h, "failed", why="it broke") for h in "bcde"))
            runs.set_wave(store.database, run, 0, "done", later(64))
            runs.move(store.database, run, "failed", later(65))
            expect(tab.locator("h1 [data-is=state]")).to_have_text("failed")
            expect(tab.locator("main")).to_contain_text("it broke")  # the page came again when the run had ended
            for path in ("/runs", "/waivers", "/audit", "/hosts/d"):
                tab.goto(server.url + path)
                assert faults(tab) == [], path
            assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert said == [] and all(a.startswith(server.url) for a in asked)


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_without_script_a_page_is_whole(tmp_path):
    url = str(tmp_path / "store.db")
    with Store(url) as store:
        run = fill(store)
    credentials = {"username": "me", "password": TOKEN}
    with (
        serving(url, tmp_path) as server,
        browser(java_script_enabled=False, http_credentials=credentials) as (tab, said, _),
    ):
        tab.goto(f"{server.url}/runs/{run}")
        assert "0 of 5 hosts done" in tab.inner_text("body") and said == []
