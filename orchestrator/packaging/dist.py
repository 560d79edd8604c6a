# SPDX-License-Identifier: Apache-2.0
"""Wheel and sdist; the same tree gives the same bytes.

The sdist is made first and the wheel from it, so that what cannot be built from the sdist is noticed here. hatchling
writes its own version into the wheel: it is the one of the development set, not whichever is newest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from orchestrator.errors import KdoError
from orchestrator.packaging.tree import VARIABLE, moment


def build(top: Path, folder: Path) -> list[Path]:
    """Put sdist and wheel of ``top`` into ``folder`` and return their paths. Raises :class:`KdoError`."""
    return _build(top, folder, [], 2)


def wheel(top: Path, folder: Path) -> Path:
    """The wheel alone, without the way over the sdist: the same bytes in half the time. Raises :class:`KdoError`."""
    return _build(top, folder, ["--wheel"], 1)[0]


def _build(top: Path, folder: Path, words: list[str], number: int) -> list[Path]:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "build", "--no-isolation", *words, "--outdir", place, os.fspath(top)]
        env = {**os.environ, VARIABLE: str(moment(top))}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        made = sorted(Path(place).iterdir())
        if done.returncode or len(made) != number:
            why = (done.stdout + done.stderr).strip()[-1000:]
            raise KdoError("wheel and sdist cannot be built", where=str(top), why=why, fix="make .venv/.ready")
        folder.mkdir(parents=True, exist_ok=True)
        out = []
        for path in made:
            target = folder / path.name
            shutil.copyfile(path, target)
            target.chmod(0o644)
            out.append(target)
    return out
