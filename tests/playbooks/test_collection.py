# SPDX-License-Identifier: Apache-2.0
"""The collection: built from the same files, the same bytes every time, installed by ansible-galaxy, used by full names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from orchestrator.collection import FULL, build, main
from tests.playbooks.hosts import DEFAULTS, PLAYBOOKS, Simulated, play, possible
from tests.playbooks.test_module_docs import ansible_doc


@pytest.fixture(scope="module")
def tarball(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(tarball, tmp_path_factory):
    place = tmp_path_factory.mktemp("installed")
    program = Path(sys.executable).with_name("ansible-galaxy")
    words = [program, "collection", "install", tarball, "-p", place, "--offline"]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "HOME": str(place)})
    assert done.returncode == 0 and f"{FULL}:" in done.stdout, done.stdout + done.stderr
    verify = [program, "collection", "verify", "--offline", "-p", place, FULL]
    checked = subprocess.run(verify, capture_output=True, text=True, env={**os.environ, "HOME": str(place)})
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return place


def test_the_same_sources_give_the_same_bytes(tarball, tmp_path, capsys):
    time.sleep(1.1)  # times in a tar are seconds
    assert main([str(tmp_path / "new")]) == 0
    again = Path(capsys.readouterr().out.strip())
    assert again.name == tarball.name and again.read_bytes() == tarball.read_bytes()
    assert main([]) == 2


def test_it_holds_what_people_use_and_nothing_twice(tarball):
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    assert len(names) == len(set(names)) and {i.mtime for i in tarfile.open(tarball)} == {315532800}
    for folder, target in (
        ("library", "plugins/modules"),
        ("module_utils", "plugins/module_utils"),
        ("lookup_plugins", "plugins/lookup"),
    ):
        for path in (PLAYBOOKS / folder).iterdir():
            assert path.suffix not in (".py", ".yml") or f"{target}/{path.name}" in names
    assert {
        "meta/runtime.yml",
        "README.md",
        "docs/ansible.md",
        "LICENSES/GPL-3.0-or-later.txt",
        "policies/knowledge/probe.yaml",
    } <= set(names)
    assert not [n for n in names if n.startswith("playbooks/kdo")]


def test_detect_and_pages_by_full_name(installed, tmp_path):
    env = {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    seen = play(f"{FULL}.detect", "-i", "web1,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}",
                "-e", f"kdo_facts_dir={tmp_path}/facts", cwd=tmp_path, **env)  # fmt: skip
    assert seen.code == 0 and "capture kernel is" in seen.text, seen.text
    assert '"host": "web1"' in (tmp_path / "facts/web1.json").read_text()
    missing = play(f"{FULL}.apply", "-i", "web1,", "-c", "local", cwd=tmp_path, **env)
    assert missing.code == 2 and f"facts that {FULL}.detect has kept" in missing.text, missing.text
    names = [f"{FULL}.{p.stem}" for p in (PLAYBOOKS / "library").glob("*.py")]
    pages = ansible_doc("-t", "module", *names, cwd=tmp_path, **env)
    assert set(pages) == set(names) and all(f"{name}:" in page["examples"] for name, page in pages.items())
    assert ansible_doc("-t", "lookup", f"{FULL}.kdo_change", cwd=tmp_path, **env)


@pytest.mark.skipif(bool(possible()), reason=possible() or "it can")
def test_a_change_by_full_name(installed, tmp_path):
    """Also: the engine that a host keeps for its next boot runs by itself, though it came from a collection."""
    host, env = Simulated(tmp_path), {"ANSIBLE_COLLECTIONS_PATH": str(installed)}
    (tmp_path / "mine.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - {FULL}.kdo_apply:\n        change_b64: \"{{{{ lookup('{FULL}.kdo_change', '{host.plan()}').change_b64 }}}}\"\n"
        f"    - {FULL}.kdo_rollback:\n        list: true\n      register: history\n"
        "    - ansible.builtin.debug:\n        var: history.transactions[0].state\n"
    )
    words = ("-i", str(host.inventory))
    done = play(tmp_path / "mine.yml", *words, cwd=tmp_path, **env)
    assert done.code == 0 and done.changed() == 1 and "committed" in done.text, done.text
    again = play(f"{FULL}.apply", *words, "-e", f"kdo_plan={tmp_path}/plan.json", cwd=tmp_path, **env)
    assert again.code == 0 and again.changed() == 0, again.text
    engine = host.tree / "var/lib/kdump-orchestrator/engine"
    copied = shutil.copytree(engine, tmp_path / "engine")
    status = [
        sys.executable,
        "-B",
        copied / "kdo_txn.py",
        "status",
        "--state-dir",
        host.tree / "var/lib/kdump-orchestrator",
    ]
    said = subprocess.run(status, capture_output=True, text=True)
    assert said.returncode == 0 and '"committed"' in said.stdout, said.stdout + said.stderr
    back = play(f"{FULL}.rollback", *words, "--diff", cwd=tmp_path, **env)
    assert back.code == 0 and back.changed() == 1 and f"--- before: {DEFAULTS}" in back.text, back.text
