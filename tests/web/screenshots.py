# SPDX-License-Identifier: Apache-2.0
"""Pictures for docs/web.md: the dashboard of a simulated fleet of 10,000 hosts in all states, by a real Chromium.

python -m tests.web.screenshots docs
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.store import runs
from orchestrator.store.runs import Placed
from orchestrator.store.store import Store, moment
from tests.reports.browser import browser
from tests.reports.screenshots import fleet
from tests.store.test_store import entered
from tests.web.serving import TOKEN, serving

PAGES = (("web-fleet", "light", "/"), ("web-hosts", "light", "/hosts?state=failed"), ("web-host", "dark", "/hosts/host000038.example"),
         ("web-run", "light", "/runs/20261124-0430"))  # fmt: skip
STATES = ("changed", "changed", "changed", "failed", "unreachable")


def _under_way(store: Store) -> None:
    """A run of three waves whose second one is half done."""
    names = [f"host{n:06d}.example" for n in range(2000) if n % 100 < 68]
    placed = [Placed(h, min(2, n // 50 if n < 50 else 1 + (n > 600)), n // 200) for n, h in enumerate(names)]
    run = entered(
        store, id="20261124-0430-7c1e", kind="apply", state="running", created="2026-11-24T04:30:00.000Z", placed=placed
    )
    for wave, upto in ((0, 50), (1, 350)):
        runs.set_wave(
            store.database, run, wave, "running", moment(datetime.now(UTC) - timedelta(seconds=90 - 30 * wave))
        )
        rows = [
            (STATES[n % 5] if n % 20 == 3 else "changed", run, p.host)
            for n, p in enumerate(placed[:upto])
            if p.wave == wave
        ]
        store.database.do(lambda s, r=rows: s.many("UPDATE run_host SET state = ? WHERE run = ? AND host = ?", r))
    runs.set_wave(store.database, run, 0, "done", moment(datetime.now(UTC) - timedelta(seconds=60)), failed=3)


def main() -> None:
    """Write the pictures, and say how quick the pages were and what the server took."""
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        url = fleet(scratch)
        with Store(url) as store:
            _under_way(store)
        with serving(url, Path(scratch)) as server:
            for name, scheme, path in PAGES:
                credentials = {"username": "me", "password": TOKEN}
                with browser(
                    color_scheme=scheme, http_credentials=credentials, viewport={"width": 1280, "height": 860}
                ) as (tab, said, _):
                    tab.goto(server.url + path)
                    tab.wait_for_timeout(1500)
                    timing = "JSON.stringify(performance.getEntriesByType('navigation')[0].duration)"
                    print(f"{path}: {float(tab.evaluate(timing)):.0f} ms", *said)
                    tab.screenshot(path=str(folder / f"{name}.png"))
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            print(next(line for line in status.splitlines() if line.startswith("VmRSS")))


if __name__ == "__main__":
    main()
