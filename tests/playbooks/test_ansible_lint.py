# SPDX-License-Identifier: Apache-2.0
"""ansible-lint in its strictest profile finds nothing, and would find something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.playbooks.hosts import PLAYBOOKS, ROOT


def lint(folder: Path, home: Path, *only: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("ansible-lint")
    env = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    env |= {"HOME": str(home), "NO_COLOR": "1", "PATH": f"{program.parent}:{env['PATH']}"}
    words = [
        program,
        "--offline",
        "--profile",
        "production",
        "--project-dir",
        folder,
        "-c",
        ROOT / ".ansible-lint",
        *only,
    ]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_playbooks_pass_and_a_sloppy_one_does_not(tmp_path):
    folder = tmp_path / "checkout"
    shutil.copytree(PLAYBOOKS, folder / "playbooks", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "policies").mkdir()
    shutil.copytree(ROOT / "policies/knowledge", folder / "policies/knowledge")
    done = lint(folder, tmp_path)
    assert done.returncode == 0 and "Profile 'production' was required, and it passed" in done.stderr, (
        done.stdout + done.stderr
    )
    (folder / "playbooks/sloppy.yml").write_text("- hosts: all\n  tasks:\n    - shell: reboot\n")
    bad = lint(folder, tmp_path, "playbooks/sloppy.yml")
    assert bad.returncode == 2 and "no-changed-when" in bad.stdout and "name[play]" in bad.stdout, bad.stdout
