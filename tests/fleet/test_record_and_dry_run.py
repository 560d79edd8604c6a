# SPDX-License-Identifier: Apache-2.0
"""Recording this machine and reading it back; hostile trees; this machine before and after a dry run; private run directories."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.errors import InvalidInput
from orchestrator.fleet.record import write_tree
from orchestrator.fleet.runner import Whom, run_directory, run_playbook


def picture(*roots: str) -> dict[str, tuple[int, int, int, str]]:
    """Mode, size, mtime and hash of everything below some directories."""
    out = {}
    for root in roots:
        for folder, _dirs, files in os.walk(root):
            for name in [".", *files]:
                path = Path(folder) / name
                s = path.lstat()
                content = (
                    hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
                )
                out[str(path)] = (s.st_mode, s.st_size, s.st_mtime_ns, content)
    return out


def test_a_dry_run_on_this_machine_writes_nothing(kdo_here, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    roots = [
        p for p in ("/etc", "/boot", "/var/lib/dpkg", "/var/crash", "/usr/local/etc", str(home)) if os.path.isdir(p)
    ]
    before = picture(*roots)
    stat_tmp = os.stat("/tmp").st_mtime_ns if not str(tmp_path).startswith("/tmp") else None
    for verb in ("detect", "plan", "validate", "explain"):
        assert kdo_here(verb, home=home).returncode in (0, 2)
    assert picture(*roots) == before
    assert stat_tmp is None or os.stat("/tmp").st_mtime_ns == stat_tmp


def test_record_and_read_back_the_same_platform(kdo_here, tmp_path):
    live = kdo_here("detect", "--record", str(tmp_path / "rec"), "--format", "json")
    again = kdo_here("detect", "--root", str(tmp_path / "rec"), "--format", "json")
    assert (live.returncode, again.returncode) == (0, 0), live.stderr + again.stderr
    one, two = (json.loads(x.stdout)["hosts"][0]["platform"] for x in (live, again))
    for field in ("arch", "hypervisor", "role", "confidential", "family", "ambiguous"):
        assert one[field] == two[field], field
    refused = kdo_here("detect", "--record", str(tmp_path / "rec"))
    assert refused.returncode == 5 and "not empty" in refused.stderr


def test_a_hostile_tree_cannot_leave_its_directory(tmp_path):
    tree = {
        "/../../escape": {"type": "file", "text": "x"},
        "/a/../../escape": {"type": "file", "text": "x"},
        "/ok": {"type": "file", "text": "fine"},
        "/link": {"type": "link", "text": str(tmp_path)},
        "/link/through": {"type": "file", "text": "x"},
        "/": {"type": "file", "text": "x"},
        "/strange": {"type": "fifo"},
        "/not-a-dict": "x",
    }
    root = tmp_path / "rec"
    write_tree(root, tree)
    assert (root / "ok").read_text() == "fine"
    assert not (tmp_path / "escape").exists() and not (tmp_path / "through").exists()
    with pytest.raises(InvalidInput):
        write_tree(root, tree)


def test_run_directories_are_private_and_gone_afterwards():
    with run_directory() as path:
        assert path.stat().st_mode & 0o777 == 0o700
    assert not path.exists()


def test_no_secret_of_the_environment_stays_anywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("CANARY", "kdo-canary-7f3a")
    monkeypatch.setenv("HOME", str(tmp_path))
    private = tmp_path / "run"  # its own, so that other runs on this machine are not taken for it
    private.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private))
    answers = run_playbook("detect.yml", Whom(), variables={"kdo_targets": ["/var/crash"]})
    assert "kdo-canary-7f3a" not in json.dumps(answers["localhost"].result)
    assert list(private.iterdir()) == []
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in left if b"kdo-canary-7f3a" in p.read_bytes()]
