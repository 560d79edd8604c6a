# SPDX-License-Identifier: Apache-2.0
"""Writes recorded trees. The entries come from hosts, so no name in them may lead out of the directory."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.errors import InvalidInput


def _inside(root: Path, name: str) -> Path | None:
    """Where an entry goes, or ``None`` when its name is not an honest absolute path."""
    pure = PurePosixPath(name)
    parts = [p for p in pure.parts if p != "/"]
    if not parts or ".." in parts or "\0" in name or len(name) > 1024:
        return None
    path = root.joinpath(*parts)
    parent = path.parent
    while parent != root:
        if parent.is_symlink():  # an earlier entry must not redirect a later one
            return None
        parent = parent.parent
    return path


def _content(entry: dict[str, Any]) -> bytes:
    if isinstance(entry.get("text"), str):
        return str(entry["text"]).encode()
    try:
        return base64.b64decode(str(entry.get("b64", "")), validate=True)
    except binascii.Error:
        return b""


def write_tree(root: Path, tree: dict[str, Any]) -> int:
    """Write one host's tree; returns the number of entries written. Links are written last, and only relative to the tree."""
    if root.exists() and any(root.iterdir()):
        raise InvalidInput(
            "the directory for the record is not empty",
            where=str(root),
            why="a record is never mixed with another one",
            fix="give a new directory",
        )
    root.mkdir(parents=True, exist_ok=True)
    written = 0
    links: list[tuple[Path, str]] = []
    for name in sorted(tree):
        entry = tree[name]
        path = _inside(root, name)
        if path is None or not isinstance(entry, dict):
            continue
        kind = entry.get("type")
        if kind == "dir":
            path.mkdir(parents=True, exist_ok=True)
        elif kind == "file" and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(entry))
        elif kind == "link":
            links.append((path, str(entry.get("text", ""))))
        else:
            continue
        written += 1
    for path, target in links:
        if not path.exists() and not path.is_symlink() and target and "\0" not in target:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
    return written


def write_trees(root: Path, trees: dict[str, dict[str, Any]]) -> None:
    """One host: into the directory itself; several: one sub-directory each."""
    if len(trees) == 1:
        write_tree(root, next(iter(trees.values())))
        return
    for host, tree in trees.items():
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in host).lstrip(".") or "host"
        write_tree(root / safe, tree)
