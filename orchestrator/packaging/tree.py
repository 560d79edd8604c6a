# SPDX-License-Identifier: Apache-2.0
"""The tree that is packaged, and the one moment that everything made from it bears."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from orchestrator.errors import InvalidInput

#: The moment where nothing says another one: hatchling's own default, so that `pip wheel .` gives the same bytes.
DEFAULT: Final = 1580601600
VARIABLE: Final = "SOURCE_DATE_EPOCH"


def root() -> Path:
    """Top of the checkout or of the unpacked sdist. Raises :class:`InvalidInput` where kdo is only installed."""
    top = Path(__file__).resolve().parents[2]
    if not (top / "pyproject.toml").is_file():
        raise InvalidInput("packages are made from a source tree", where=str(top), why="there is no pyproject.toml",
                           fix="use a checkout or an unpacked sdist")  # fmt: skip
    return top


def moment(top: Path) -> int:
    """Seconds since 1970: ``SOURCE_DATE_EPOCH``, else the last commit, else what the sdist was made with, else :data:`DEFAULT`.

    tar keeps the times of what it unpacks, so an sdist says by its PKG-INFO when it was made: the wheel made from it is
    the one that was made from the checkout.
    """
    given = os.environ.get(VARIABLE, "")
    if given:
        if not (given.isascii() and given.isdigit()):
            raise InvalidInput(f"{VARIABLE} is {given[:40]!r}", why="it must be seconds since 1970")
        return int(given)
    if (top / ".git").exists():
        asked = ["git", "-C", os.fspath(top), "log", "-1", "--format=%ct"]
        try:
            said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        except FileNotFoundError:
            said = ""
        if said.isdigit():
            return int(said)
    info = top / "PKG-INFO"
    return int(info.stat().st_mtime) if info.is_file() else DEFAULT
