# SPDX-License-Identifier: Apache-2.0
"""What the site does beyond MkDocs: files outside docs/ that a page links to become pages, so that one link serves a forge and
the site alike; the changelog is a page; and the folded parts of generated pages are Markdown as on a forge."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
_LANGUAGES = {
    ".py": "python",
    ".yml": "yaml",
    ".yaml": "yaml",
    ".json": "json",
    ".md": "markdown",
    ".ini": "ini",
    ".cfg": "ini",
}
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")


def _outside(page: str, target: str) -> str:
    """Path below the top level of what a link of ``page`` (below docs/) points at, or "" where it stays in docs/."""
    if re.match(r"[a-z]+:|/", target):
        return ""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return "" if path == "docs" or path.startswith("docs/") else path


def _page_of(path: str) -> str:
    """Where a file from outside docs/ is on the site."""
    return "changelog.md" if path == "CHANGELOG.md" else f"files/{path}.md"


def _source(path: str, page: str) -> str:
    """A page that shows a file."""
    file = ROOT / path
    if path.startswith("../") or not file.is_file():
        raise PluginError(f"docs/{page}: a link to {path}, which is no file of this repository")
    text = file.read_text(encoding="utf-8")
    fence = "`" * max(3, 1 + max((len(m) for m in re.findall(r"`+", text)), default=0))
    head = f"---\ntitle: {path}\nsearch: {{exclude: true}}\n---\n# `{path}`\n\n"
    return f"{head}{fence}{_LANGUAGES.get(file.suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not files of docs/."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=text))
    for file in list(files.documentation_pages()):
        for part in _FENCE.split(file.content_string)[::2]:
            for target in _LINK.findall(part):
                path = _outside(file.src_uri, target)
                page = _page_of(path)
                if path and files.get_file_from_path(page) is None:
                    made = File.generated(
                        config, page, content=_source(path, file.src_uri), inclusion=InclusionLevel.NOT_IN_NAV
                    )
                    files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to the pages that :func:`on_files` has added, outside fenced blocks."""
    here = page.file.src_uri

    def link(found: re.Match[str]) -> str:
        path = _outside(here, found[1])
        return posixpath.relpath(_page_of(path), posixpath.dirname(here) or ".") if path else found[1]

    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(link, part).replace("<details>", '<details markdown="1">') for part in parts[::2]]
    return "".join(parts)
