# SPDX-License-Identifier: Apache-2.0
"""`kdo` on this machine, with a home directory of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def kdo_here(tmp_path: Path):
    def run(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(home or tmp_path)},
            cwd=home or tmp_path,
            timeout=300,
            check=False,
        )

    return run
