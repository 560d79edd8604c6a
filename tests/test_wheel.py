# SPDX-License-Identifier: Apache-2.0
"""The built wheel in an empty environment, run from another directory, has policies, playbooks and schemas."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

from orchestrator.documents.base import encode
from tests.builders import debian

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)


def test_installed_from_a_wheel(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path / "dist", ROOT, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("kdump_orchestrator-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    bin_dir = tmp_path / "env/bin"
    installed = run(bin_dir / "python", "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    kdo = bin_dir / "kdo"
    (elsewhere / "facts.json").write_bytes(encode(debian()))
    assert run(kdo, "policy", "lint", cwd=elsewhere).returncode == 0
    plan = run(kdo, "plan", "--facts", "facts.json", "--format", "json", cwd=elsewhere)
    assert plan.returncode == 2 and json.loads(plan.stdout)["hosts"][0]["strategy"] == "custom_handler"
    assert "policies/default.yaml:" in plan.stdout and str(tmp_path) not in plan.stdout
    run(kdo, "plan", "--facts", "facts.json", "-o", "plan.json", cwd=elsewhere)
    assert run(kdo, "report", "plan.json", "--format", "html", "-o", "page.html", cwd=elsewhere).returncode == 2
    assert "web1" in (elsewhere / "page.html").read_text()
    live = run(kdo, "detect", "--format", "json", cwd=elsewhere)
    assert live.returncode == 0, live.stderr
    assert json.loads(live.stdout)["hosts"][0]["host"] == "localhost"
    assert run(kdo, "doctor", cwd=elsewhere).returncode == 0
    inside = set(
        run(
            bin_dir / "python",
            "-c",
            "import orchestrator.resources as r, os; print(*os.listdir(r.data_root()))",
            cwd=elsewhere,
        ).stdout.split()
    )
    assert {"policies", "playbooks", "schemas"} <= inside
