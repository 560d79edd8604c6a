# SPDX-License-Identifier: Apache-2.0
"""Ansible's programs are not always beside Python: packages of one user, or the system's own Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from orchestrator.errors import KdoError
from orchestrator.fleet.inventory import resolve
from orchestrator.fleet.runner import Whom, program


def test_the_one_beside_python_comes_first_and_then_path(tmp_path, monkeypatch):
    real = program("ansible-inventory")
    assert Path(real).parent == Path(sys.executable).parent
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python3"))
    monkeypatch.setenv("PATH", str(Path(real).parent))
    assert program("ansible-inventory") == real
    assert list(resolve(Whom(("web1,web2",))).hosts) == ["web1", "web2"]


def test_without_ansible_it_is_said_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python3"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KdoError, match="ansible-inventory cannot be found") as error:
        resolve(Whom(("web1,web2",)))
    assert "PATH" in error.value.problems[0].why and "ansible-core" in error.value.problems[0].fix
