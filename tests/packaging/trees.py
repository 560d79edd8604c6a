# SPDX-License-Identifier: Apache-2.0
"""Copies of the source tree that have nothing in common with it but their files, and what is built once for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from orchestrator.packaging.lock import FILE, constraints, read
from tests.once import once

ROOT = Path(__file__).parent.parent.parent
NOT_OURS = (".git", ".venv", "dist", "build", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")


def copy(target: Path, umask: int, seconds: int) -> Path:
    """The tree at another place, as another user's umask leaves it, with times from ``seconds`` on; no git."""
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*NOT_OURS), symlinks=True)
    for number, path in enumerate(sorted([target, *target.rglob("*")], reverse=True)):
        path.chmod((0o777 if path.is_dir() or path.stat().st_mode & 0o100 else 0o666) & ~umask)
        os.utime(path, (seconds + number, seconds + number))
    return target


def make(what: str, tree: Path, folder: Path, umask: int = 0o022, **environment: str) -> list[Path]:
    """What the Makefile does, from ``tree``."""
    env = {k: v for k, v in os.environ.items() if k not in ("SOURCE_DATE_EPOCH", "PYTHONPATH")}
    command = [sys.executable, "-m", "orchestrator.packaging", what, str(folder)]
    done = subprocess.run(command, cwd=tree, env={**env, "PYTHONDONTWRITEBYTECODE": "1", **environment}, umask=umask,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


def bare(factory: pytest.TempPathFactory) -> Path:
    """A folder with ``dist/*.whl`` and ``env``: an environment with the wheel, what it needs, and no extra; versions as locked."""

    def install(place: Path) -> None:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", place / "dist", ROOT]
        done = subprocess.run([*pip, *words], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (wheel,) = (place / "dist").glob("kdump_orchestrator-*.whl")
        venv.create(place / "env", with_pip=False)
        versions = place / "constraints.txt"
        versions.write_text(constraints(read((ROOT / "tests" / FILE).read_text())))
        words = ["--python", place / "env/bin/python", "install", "-q", "-c", versions, wheel]
        done = subprocess.run([*pip, *words], cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return once(factory, "bare", install)
