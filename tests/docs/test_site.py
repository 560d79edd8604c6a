# SPDX-License-Identifier: Apache-2.0
"""The site: built strictly, whole without any resource from elsewhere, every page reachable, every link good; and the same links
are good on a forge."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.markdown import PAGES, ROOT, anchors, links
from tests.once import once
from tests.reports.browser import CHROMIUM, browser

#: What a browser fetches by itself, as against links that somebody follows.
FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("source", "srcset"), ("img", "srcset"),
           ("video", "src"), ("audio", "src"), ("embed", "src"), ("object", "data"), ("input", "src")}  # fmt: skip


class Html(HTMLParser):
    """What a page fetches, where its links go, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            if (tag, name) in FETCHED or (tag == "link" and name == "href"):
                self.fetched.append(value or "")
            elif tag == "a" and name == "href":
                self.links.append(value or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""

    def make(place: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-q",
            "-f",
            ROOT / "mkdocs.yml",
            "-d",
            place / "site",
        ]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
        assert done.returncode == 0 and not done.stderr.strip(), done.stderr

    return once(tmp_path_factory, "docs-site", make) / "site"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Html]:
    return {path: Html(path.read_text()) for path in site.rglob("*.html")}


def test_nothing_comes_from_elsewhere(site, pages):
    assert len(pages) > len(PAGES)
    for path, page in pages.items():
        outside = [a for a in page.fetched if urlsplit(a).netloc or urlsplit(a).scheme not in ("", "data")]
        assert not outside, (path, outside)
    for path in (p for folder in ("site", "assets/stylesheets") for p in (site / folder).rglob("*.css")):
        text = path.read_text()
        assert "url(http" not in text and "url(//" not in text and "@import" not in text, path
    for path in site.rglob("*.svg"):
        assert 'href="http' not in path.read_text() and "<image" not in path.read_text(), path


def test_every_link_of_the_site_resolves(site, pages):
    bad = []
    for path, page in pages.items():
        if path.name == "404.html":  # it is shown under any address, so its links are absolute
            continue
        for link in [*page.links, *page.fetched]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_relative_to(site) or not target.is_file():
                bad.append(f"{path.relative_to(site)}: {link}: there is no such file")
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in pages[target].anchors:
                bad.append(f"{path.relative_to(site)}: {link}: there is no such anchor")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_resolves_on_a_forge(page):
    text = page.read_text()
    for link in links(text):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.is_relative_to(ROOT) and target.exists(), f"{link}: there is no such file"
        if parts.fragment and target.suffix == ".md":
            count = anchors(target.read_text())[parts.fragment]
            assert count == 1, f"{link}: {count} headings make that anchor"


def test_every_page_is_in_the_navigation():
    from mkdocs.config import load_config

    def leaves(node):
        if isinstance(node, str):
            return [node]
        return [leaf for value in (node.values() if isinstance(node, dict) else node) for leaf in leaves(value)]

    listed = leaves(load_config(str(ROOT / "mkdocs.yml")).nav)
    wanted = {str(p.relative_to(ROOT / "docs")) for p in PAGES} | {"changelog.md"}
    assert len(listed) == len(set(listed)) and set(listed) == wanted, "add it to nav in mkdocs.yml"


@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_the_search_works_from_disk_and_asks_nobody(site):
    with browser() as (page, said, asked):
        page.goto(f"file://{site}/adr/0003-two-validators.html")
        page.fill("[data-md-component=search-query]", "crashkernel")
        page.wait_for_selector(".md-search-result__item", timeout=20000)
        assert "matching document" in page.inner_text(".md-search-result__meta")
        assert not said, said
        assert not [a for a in asked if not a.startswith("file:")]
