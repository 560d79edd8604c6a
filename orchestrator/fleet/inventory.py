# SPDX-License-Identifier: Apache-2.0
"""An Ansible inventory read once: the names, groups and variables of its hosts, and small inventories for some of them.

A shard gets an inventory of its own hosts only: to read 100,000 hosts costs Ansible seconds, and every shard would pay them.
Variables are the user's own and may hold secrets: they stay in memory and in private run directories.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestrator.errors import InventoryError
from orchestrator.fleet.runner import Whom, complain, environment, inventory_sources, program, run_directory

_NOT_GROUPS = ("_meta", "all", "ungrouped")


@dataclass(frozen=True, slots=True)
class Host:
    """One host of an inventory. ``groups``: sorted, with the groups around its groups; ``variables``: as Ansible merges them."""

    name: str
    groups: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> tuple[str, ...]:
        """The operator's tags (``kdo_tags``), as far as they are plain text."""
        tags = self.variables.get("kdo_tags")
        return tuple(t for t in tags if isinstance(t, str)) if isinstance(tags, list) else ()


@dataclass(frozen=True)
class Inventory:
    """Hosts by name, in the inventory's order. ``folder``: where relative names of its variables begin."""

    hosts: Mapping[str, Host]
    folder: str = ""

    @property
    def hash(self) -> str:
        """What tells two inventories apart: the names and groups of their hosts (SHA-256), never their variables."""
        text = json.dumps([[h.name, h.groups, h.tags] for h in self.hosts.values()])
        return sha256(text.encode()).hexdigest()

    def subset(self, names: Iterable[str]) -> bytes:
        """An inventory (JSON) of these hosts alone, which Ansible reads as it read the whole."""
        chosen = [self.hosts[name] for name in names]
        place = {"inventory_dir": self.folder} if self.folder else {}
        groups: dict[str, dict[str, Any]] = {}
        for host in chosen:
            for group in host.groups:
                groups.setdefault(group, {"hosts": {}})["hosts"][host.name] = None
        hosts = {h.name: {**place, **h.variables} for h in chosen}
        return json.dumps({"all": {"hosts": hosts, "children": groups}}).encode()


def read_subset(data: bytes) -> Inventory:
    """Back from :meth:`Inventory.subset`."""
    found = json.loads(data)["all"] if data else {"hosts": {}, "children": {}}
    groups: dict[str, list[str]] = {}
    for group, members in found.get("children", {}).items():
        for host in members["hosts"]:
            groups.setdefault(host, []).append(group)
    return Inventory({n: Host(n, tuple(sorted(groups.get(n, ()))), v) for n, v in found["hosts"].items()})


def resolve(whom: Whom) -> Inventory:
    """Read the inventory and apply ``--limit``, as ``ansible-inventory`` does. No host is asked.

    Raises :class:`InventoryError` when it cannot be read or names no host.
    """
    if whom.local:
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        return Inventory({whom.name: Host(whom.name, whom.groups, variables)})
    with run_directory() as run:
        sources = inventory_sources(whom, run)
        command = [program("ansible-inventory"), "--list"]
        for source in sources:
            command += ["-i", source]
        command += ["--limit", whom.limit] if whom.limit else []
        done = subprocess.run(command, capture_output=True, env={**os.environ, **environment(run)}, check=False)
    try:
        data = json.loads(done.stdout) if done.returncode == 0 else None
    except ValueError:
        data = None
    if not isinstance(data, dict):
        complain(done.stderr.decode("utf-8", "replace"))
        raise InventoryError("the inventory cannot be read", where=", ".join(whom.inventory))
    found = _hosts(data)
    if not found:
        raise InventoryError("no host matches", where=", ".join(whom.inventory), why="the inventory names no host for this",
                             fix="check -i and --limit")  # fmt: skip
    return Inventory(found, _folder(sources))


def _folder(sources: Sequence[str]) -> str:
    paths = [Path(s) for s in sources if not s.endswith(",") and Path(s).exists()]
    if not paths:
        return ""
    return str(paths[0] if paths[0].is_dir() else paths[0].parent)


def _hosts(data: Mapping[str, Any]) -> dict[str, Host]:
    """The hosts of what ``ansible-inventory --list`` prints, each with every group that it is in, however deep."""
    parents: dict[str, set[str]] = {}
    direct: dict[str, set[str]] = {}
    for name, group in data.items():
        if name == "_meta" or not isinstance(group, dict):
            continue
        for child in group.get("children", []):
            parents.setdefault(child, set()).add(name)
        for host in group.get("hosts", []):
            direct.setdefault(host, set()).add(name)
    above: dict[str, set[str]] = {}

    def around(group: str) -> set[str]:
        if group not in above:
            above[group] = {group}
            for parent in parents.get(group, ()):
                above[group] |= around(parent)
        return above[group]

    variables = data.get("_meta", {}).get("hostvars", {})
    out = {}
    same: dict[frozenset[str], tuple[str, ...]] = {}  # most hosts of a fleet are in the same groups as many others
    for host in [*variables, *(h for h in direct if h not in variables)]:
        own = frozenset(direct.get(host, ()))
        if own not in same:
            groups = set().union(*(around(g) for g in own)) if own else set()
            same[own] = tuple(sorted(groups.difference(_NOT_GROUPS)))
        out[host] = Host(host, same[own], variables.get(host, {}))
    return out
