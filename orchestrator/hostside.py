# SPDX-License-Identifier: Apache-2.0
"""The host side's own modules, loaded for use on the controller.

``playbooks/module_utils`` is shipped to hosts and must stay importable there by itself, so it is no package of ours.
What both sides need (how a file is edited, how a tree is probed) exists once, there, and is loaded by path here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

from orchestrator.resources import data_path


@cache
def load(name: str) -> ModuleType:
    """Import one module of ``playbooks/module_utils`` by its plain name, e.g. ``kdo_edit``."""
    folder = str(data_path("playbooks/module_utils"))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def assign(text: str, assignments: Sequence[tuple[str, str]]) -> str:
    """``text`` of a shell variable file with each KEY set to its value; everything else stays byte for byte."""
    result: str = load("kdo_edit").assign(text, [(k, v) for k, v in assignments])
    return result


def read_assignments(text: str) -> dict[str, tuple[str | None, int]]:
    """What a shell ends up with: KEY → (value, line); the value is ``None`` where it cannot be told without a shell."""
    result: dict[str, tuple[str | None, int]] = load("kdo_edit").read_assignments(text)
    return result


def edited(text: str, path: str, operation: str, what: Sequence[Any], what_not: Sequence[str]) -> str:
    """The text of a file after an editing step, made by the code that the host itself runs."""
    members = {"settings": "settings", "assign": "assignments"}
    step: dict[str, Any] = {"op": operation, "path": path}
    if operation == "arguments":
        step |= {"ensure": list(what), "remove": list(what_not)}
    else:
        step[members[operation]] = list(what)
    data: bytes = load("kdo_txn_files").edited(text.encode("utf-8", "surrogateescape"), step)
    return data.decode("utf-8", "surrogateescape")


def edit_error() -> type[Exception]:
    """The error that the functions above raise."""
    error: type[Exception] = load("kdo_edit").EditError
    return error


def collect(
    root: str, host: str, interest: dict[str, Any], targets: list[str], inventory: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Probe a directory tree as if it were a host's root; returns a facts document as plain data. ``/`` is this machine."""
    probe = load("kdo_probe")
    result: dict[str, Any] = probe.collect(
        root=root, host=host, interest=interest, targets=targets, inventory=inventory
    )
    return result
