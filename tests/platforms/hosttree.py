# SPDX-License-Identifier: Apache-2.0
"""Recorded hosts: ``tests/hosts/*.yaml`` → a tree of files → the facts that the probe reads from it.

A host file has ``name``, ``origin``, ``tree``, ``signals`` (what no file tells: the content of ``.kdo/signals.json``) and
``expect``. An entry of the tree is the text of a file, ``{link: TARGET}``, ``{base64: BYTES}``, or, with a path that
ends in ``/``, an empty directory.
"""

from __future__ import annotations

import base64
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.documents.facts import Facts
from orchestrator.resources import data_path
from orchestrator.yamlmarks import load

HOSTS = Path(__file__).parent.parent / "hosts"
PROBE = Path(__file__).parent.parent.parent / "playbooks" / "module_utils"

#: Files below these are commands: they get the execute bit, as the probe asks for it.
COMMANDS = ("/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/")


def host_files() -> list[Path]:
    """All recorded hosts, sorted by name."""
    return sorted(HOSTS.glob("*.yaml"))


@cache
def load_host(path: Path) -> dict[str, Any]:
    """One recorded host. Do not change what this returns."""
    data: dict[str, Any] = load(path.read_text(encoding="utf-8"), path.name).data
    assert data["name"] == path.stem, path
    return data


def materialise(host: dict[str, Any], directory: Path) -> Path:
    """Write the tree of a host below ``directory``; returns the root to probe."""
    root = directory / host["name"]
    root.mkdir(parents=True)
    for path, entry in host["tree"].items():
        place = root / path.lstrip("/")
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, dict) and "link" in entry:
            place.symlink_to(entry["link"])
        elif isinstance(entry, dict):
            place.write_bytes(base64.b64decode(entry["base64"]))
        else:
            place.write_bytes(entry.encode())
            if path.startswith(COMMANDS):
                place.chmod(0o755)
    signals = root / ".kdo" / "signals.json"
    signals.parent.mkdir()
    signals.write_text(json.dumps(host["signals"]))
    return root


@cache
def interest() -> dict[str, Any]:
    """What the probe looks at, from the shipped data."""
    data: dict[str, Any] = load(data_path("policies/knowledge/probe.yaml").read_text(), "probe.yaml").data
    return data["kdo_interest"]


def facts_of(host: dict[str, Any], directory: Path) -> Facts:
    """Facts as the probe collects them from the materialised host."""
    if str(PROBE) not in sys.path:
        sys.path.insert(0, str(PROBE))
    import kdo_probe

    root = materialise(host, directory)
    collected = kdo_probe.collect(
        root=str(root), host=host["name"], interest=interest(), targets=["/var/crash"], inventory={}, udev="auto"
    )
    return msgspec.convert(json.loads(json.dumps(collected)), type=Facts)
