# SPDX-License-Identifier: Apache-2.0
"""Where the data trees are: beside the package in a checkout, inside it (``_data``) when installed."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from orchestrator.errors import KnowledgeError


@cache
def data_root() -> Path:
    """Directory that holds ``policies/``, ``playbooks/`` and ``schemas/``."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "_data", package.parent):
        if (candidate / "policies").is_dir() and (candidate / "playbooks").is_dir():
            return candidate
    raise KnowledgeError("the data files of kdump-orchestrator are missing", where=str(package), fix="install it again")


def data_path(relative: str) -> Path:
    """Absolute path of a shipped file, e.g. ``policies/default.yaml``."""
    return data_root() / relative


def read_text(relative: str) -> str:
    """Text of a shipped file."""
    return data_path(relative).read_text(encoding="utf-8")


def how_to_install(extra: str, debian: str = "") -> str:
    """What to do where the extra is missing: by pip, or from Debian's packages where this code comes from one.

    ``debian``: the package that has it there; none: Debian has none.
    """
    pip = f"pip install 'kdump-orchestrator[{extra}]'"
    if not from_debian():
        return pip
    return f"apt-get install {debian}" if debian else f"Debian has no package of it: {pip} in an environment of its own"


def from_debian() -> bool:
    """Whether this code lies where the Debian package puts it."""
    return data_root().is_relative_to("/usr/share/kdump-orchestrator")


def command_of(module: str) -> list[str]:
    """The command that runs a module of ours in another process: this very code, wherever it lies.

    A Debian package keeps it out of Python's own path, and the directory that somebody happens to be in is not looked at.
    """
    place = str(Path(__file__).resolve().parents[1])
    code = f"import runpy, sys; sys.path.insert(0, {place!r}); runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-P", "-c", code]


def state_dir() -> Path:
    """Where this tool remembers things: ``$XDG_STATE_HOME/kdump-orchestrator``; it need not exist yet."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "kdump-orchestrator"
