# SPDX-License-Identifier: Apache-2.0
"""Formatters, linters and types are tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> None:
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_check():
    run("ruff", "check", "--no-cache", ".")


def test_ruff_format():
    run("ruff", "format", "--check", "--no-cache", ".")


def test_mypy_strict():
    run("mypy", "--cache-dir=/dev/null", "orchestrator")


def test_every_source_names_its_licence():
    for path in [
        *ROOT.glob("orchestrator/**/*.py"),
        *ROOT.glob("playbooks/**/*.py"),
        *ROOT.glob("playbooks/**/*.yml"),
        *ROOT.glob("tests/**/*.py"),
    ]:
        head = path.read_text()[:300]
        wanted = (
            "GPL-3.0-or-later"
            if path.parent.name in ("library", "lookup_plugins") or path.suffix == ".yml"
            else "Apache-2.0"
        )
        assert f"SPDX-License-Identifier: {wanted}" in head, path


@pytest.mark.parametrize("folder", ["orchestrator", "playbooks"])
def test_no_module_grows_over_four_hundred_lines(folder):
    long = {p: n for p in ROOT.glob(f"{folder}/**/*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_imports_run_one_way():
    """cli → fleet/reports → checks → planning → distros/bootloaders → policy/knowledge → platforms → documents."""
    ranks = {"documents": 0, "platforms": 1, "knowledge": 2, "policy": 2, "bootloaders": 3, "distros": 3, "planning": 4, "checks": 5,
             "fleet": 6, "reports": 6, "lab": 1, "store": 1, "proof": 7, "agent": 7, "web": 7, "engine": 8, "cli": 9, "packaging": 10}  # fmt: skip
    wrong = []
    for path in ROOT.glob("orchestrator/*/*.py"):
        for line in path.read_text().splitlines():
            if line.lstrip().startswith("from orchestrator."):
                other = line.split()[1].split(".")[1]
                if ranks.get(other, -1) > ranks[path.parent.name]:
                    wrong.append(f"{path.relative_to(ROOT)}: {line.strip()}")
    assert not wrong
