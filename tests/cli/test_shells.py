# SPDX-License-Identifier: Apache-2.0
"""Completion in real shells, and man pages read by mandoc."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.manpages import pages

#: Source the script, complete a line, print what came. zsh completes only at a prompt, which zpty gives it.
LINES = {
    "bash": 'source ./script; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _kdo_completion kdo 2>/dev/null; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "fish": 'source ./script; complete -C "{words}"',
    "zsh": "autoload -U compinit; compinit -u -d dump; source ./script; whence -w _kdo_completion; "
           "COMP_WORDS='{words}' COMP_CWORD={at} _KDO_COMPLETE=zsh_complete kdo",
}  # fmt: skip


@pytest.fixture
def shell(tmp_path):
    (tmp_path / "bin").mkdir()
    kdo = tmp_path / "bin/kdo"
    kdo.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    kdo.chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{kdo.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path.cwd()),
    }

    def complete(name: str, words: str) -> str:
        said = subprocess.run([kdo, "completion", name], capture_output=True, text=True, env=env, check=True)
        (tmp_path / "script").write_text(said.stdout)
        line = LINES[name].format(words=words, at=len(words.split()) - 1)
        command = [name, "--norc", "--noprofile", "-c", line] if name == "bash" else [name, "-c", line]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, check=False).stdout

    return complete


@pytest.mark.parametrize("name", LINES)
def test_a_shell_completes_verbs_options_and_values(shell, name):
    if not shutil.which(name):
        pytest.skip(f"needs {name}")
    found = set(re.split(r"\s+", shell(name, "kdo re")))
    assert {"report", "rehearse"} <= found and "plan" not in found
    assert "sarif" in shell(name, "kdo report --format s").split()
    assert "--require-signed" in shell(name, "kdo plan --req")


def test_every_verb_has_a_page():
    found = dict(pages())
    assert {"kdo.1", "kdo-plan.1", "kdo-policy-lint.1", "kdo-runs-resume.1"} <= set(found)
    assert r"kdo\-report(1)" in found["kdo.1"] and "KDO_STORE" in found["kdo-report.1"]
    for name, text in found.items():
        assert all(part in text for part in (".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH EXIT STATUS")), name


@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
def test_mandoc_finds_no_fault(tmp_path):
    for name, text in pages():
        (tmp_path / name).write_text(text)
    found = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *sorted(tmp_path.glob("*.1"))],
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in (found.stdout + found.stderr).splitlines() if "missing date" not in line]  # on purpose
    assert told == []
    page = subprocess.run(
        ["mandoc", "-T", "utf8", tmp_path / "kdo-report.1"], capture_output=True, text=True, check=True
    ).stdout
    plain = re.sub(".\b", "", page)
    assert "--store URL" in plain and "`kdo plan -o`" in plain and "Interrupted." in plain
