# SPDX-License-Identifier: Apache-2.0
"""`kdo` as a process of its own: what a user sees, and the exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.documents.base import encode
from tests.builders import debian, kernel


@pytest.fixture
def kdo(tmp_path: Path):
    """Run `kdo` in an empty directory; checks that no traceback reaches the user unless the fault is ours."""

    def run(
        *arguments: str, stdin: bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            [sys.executable, "-m", "orchestrator", *arguments],
            input=stdin,
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), **(env or {})},
            timeout=300,
            check=False,
        )
        out = subprocess.CompletedProcess(
            result.args,
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )
        assert out.returncode == 1 or "Traceback" not in out.stderr, out.stderr
        return out

    return run


@pytest.fixture
def facts(tmp_path: Path):
    """Recorded facts of a few hosts as JSON lines."""
    hosts = [debian("web1"), debian("web2"), kernel(debian("db1"), symbols=None)]
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b"".join(encode(h) + b"\n" for h in hosts))
    return str(path)
