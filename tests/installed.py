# SPDX-License-Identifier: Apache-2.0
"""An environment into which pip really installs kdo from its wheel; made once in a test run."""

from __future__ import annotations

import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.once import once

ROOT = Path(__file__).parent.parent


def installed(factory: pytest.TempPathFactory) -> Path:
    """The environment's folder; the wheel lies in it. What kdo needs is found where the tests have it."""

    def make(place: Path) -> None:
        venv.create(place, with_pip=True)
        needs = place / "needs"
        needs.mkdir()
        for entry in (e for folder in site.getsitepackages() for e in Path(folder).iterdir()):
            if "kdump_orchestrator" not in entry.name:
                (needs / entry.name).symlink_to(entry)
        (packages,) = place.glob("lib/python*/site-packages")
        (packages / "needs.pth").write_text(f"{needs}\n")
        wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(place), str(ROOT)]
        subprocess.run(wheel, check=True, capture_output=True)
        # Here already, so that jobs which run at the same time do not install into one place at once.
        (file,) = place.glob("*.whl")
        subprocess.run([place / "bin/pip", "install", "-q", file], check=True, capture_output=True)

    return once(factory, "installed", make)
