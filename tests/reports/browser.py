# SPDX-License-Identifier: Apache-2.0
"""A real headless Chromium (Debian's) that reports everything a page does wrong."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


@contextmanager
def browser(**context: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
    """A page, what its console and its errors said, and every address that it asked for."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # --no-sandbox: as root, in a container, Chromium refuses to start with it.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            page = started.new_context(**context).new_page()
            said: list[str] = []
            asked: list[str] = []
            page.on("console", lambda m: said.append(f"{m.type}: {m.text}"))
            page.on("pageerror", lambda e: said.append(f"error: {e}"))
            page.on("request", lambda r: asked.append(r.url))
            yield page, said, asked
        finally:
            started.close()


def faults(page: Any) -> list[str]:
    """What axe-core finds that is serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {v['help']}: {n['target']} {n.get('failureSummary', '')}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"][:3]
    ]
