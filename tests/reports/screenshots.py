# SPDX-License-Identifier: Apache-2.0
"""Pictures for docs/reports.md: the HTML report of a simulated fleet of 10,000 hosts in all states, by a real Chromium.

    python -m tests.reports.screenshots docs

The hosts are those of benchmarks/fleet.py; a sweep and an apply in waves put them on record, as the product does it. The states that
a simulation does not come to by itself (failed, waived, proof expired, drift after the apply) are set on some hosts afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.phases import campaign
from orchestrator.store.hosts import set_state
from orchestrator.store.store import Store
from tests.reports.browser import browser

ROOT = Path(__file__).parent.parent.parent
HOSTS = 10_000
AFTERWARDS = {
    "failed": ("capture-loaded: no capture kernel is loaded", range(0, 10_000, 911)),
    "drift": ("the capture kernel is loaded with other arguments", range(3, 10_000, 97)),
    "waived": ("waived until 2027-01-31: no room for a dump", range(5, 10_000, 203)),
    "proof expired": ("the kernel is another one than at the last crash test", range(7, 10_000, 61)),
}


def fleet(folder: str) -> str:
    """A store with the simulated fleet, in this folder. Returns its path."""
    url = str(Path(folder) / "fleet.db")
    for kind in ("sweep", "apply"):
        campaign({"hosts": HOSTS, "url": url, "folder": folder}, kind)
    with Store(url) as store:
        for state, (why, numbers) in AFTERWARDS.items():
            names = [f"host{n:06d}.example" for n in numbers if n % 100 < 68]
            store.database.do(lambda s, a=names, b=state, c=why: set_state(s, a, b, c, "2026-11-24T03:00:00.000Z"))
    return url


def main() -> None:
    """Write the pictures into a folder, and say how large and how quick the page was."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        fleet(scratch)
        file = Path(scratch) / "report.html"
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "orchestrator",
            "report",
            "--store",
            "fleet.db",
            "--format",
            "html",
            "-o",
            str(file),
        ]
        subprocess.run(command, check=False, cwd=scratch, env={**os.environ, "PYTHONPATH": str(ROOT)})
        print(f"{file.stat().st_size:,} bytes, made in {time.monotonic() - began:.2f} s")
        for scheme, name in (("light", "report-fleet"), ("dark", "report-host")):
            with browser(color_scheme=scheme, viewport={"width": 1280, "height": 860}) as (tab, said, _):
                tab.goto(file.as_uri())
                tab.wait_for_selector("#list tbody tr")
                timing = "JSON.stringify(performance.getEntriesByType('navigation')[0].duration)"
                print(f"{scheme}: loaded in {float(tab.evaluate(timing)):.0f} ms", *said)
                if name == "report-host":
                    tab.locator("#search").fill("host000038")
                    tab.wait_for_timeout(300)
                    tab.locator("#list tbody button").first.click()
                    tab.locator("#hosts").scroll_into_view_if_needed()
                    tab.evaluate("document.getElementById('hosts').scrollIntoView()")
                tab.screenshot(path=str(folder / f"{name}.png"))


if __name__ == "__main__":
    main()
