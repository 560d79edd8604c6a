# SPDX-License-Identifier: Apache-2.0
"""ARA beside us: its callback records what people run, and what kdo runs; no secret of a host ends there."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from orchestrator.packaging.lock import ARA
from tests.once import once
from tests.playbooks.hosts import PLAYBOOKS, Simulated, possible
from tests.sshd import SSHD, Sshd


class Ara:
    """ARA's offline API server: a SQLite file of its own, and its callback."""

    def __init__(self, code: Path, base: Path) -> None:
        self.callback = code / "ara/plugins/callback"
        self.base = base
        self.env = {"PYTHONPATH": str(code), "ARA_BASE_DIR": str(base)}

    def playbooks(self) -> list[tuple[str, str, int]]:
        """Path, status and number of hosts of every recorded run."""
        rows = "select path, status, (select count(*) from hosts where playbook_id = playbooks.id) from playbooks"
        with sqlite3.connect(self.base / "ansible.sqlite") as database:
            return database.execute(rows).fetchall()

    def everything(self) -> str:
        """Every value of every table, unpacked."""
        found = []
        with sqlite3.connect(self.base / "ansible.sqlite") as database:
            for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
                for row in database.execute(f"select * from {table}"):
                    found += [zlib.decompress(x).decode() if isinstance(x, bytes) else str(x) for x in row]
        return "\n".join(found)


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """ARA, installed once for all processes of a test run."""

    def make(place: Path) -> None:
        locked = Path(__file__).parents[1] / ARA
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", place, "--require-hashes", "-r", locked]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "ara-code", make)


@pytest.fixture
def ara(code, tmp_path):
    return Ara(code, tmp_path / "ara")


def kdo(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "HOME": str(cwd), **env}
    own["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(Path(__file__).parents[2])])
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not SSHD, reason="there is no sshd here")
def test_what_kdo_runs_is_recorded_too(ara, tmp_path):
    """With the callback from the environment, and from ansible.cfg."""
    with Sshd(tmp_path / "sshd") as sshd:
        known = sshd.known_hosts(tmp_path / "known_hosts")
        (tmp_path / "hosts.ini").write_text(
            f"h1 ansible_host=127.0.0.1 ansible_port={sshd.port} ansible_user={sshd.user} ansible_ssh_private_key_file={sshd.key}"
            f" ansible_python_interpreter={sys.executable} ansible_ssh_common_args='-F none -o UserKnownHostsFile={known}'\n"
        )
        words = ("-i", "hosts.ini", "--format", "json")
        seen = kdo("detect", *words, cwd=tmp_path, **ara.env, ANSIBLE_CALLBACK_PLUGINS=str(ara.callback))
        (tmp_path / "ansible.cfg").write_text(
            f"[defaults]\ncallback_plugins = {os.path.relpath(ara.callback, tmp_path)}\n"
        )
        planned = kdo("plan", *words, cwd=tmp_path, **ara.env)
    assert seen.returncode == 0 and planned.returncode in (0, 2), seen.stderr + planned.stderr
    assert json.loads(seen.stdout)["hosts"][0]["platform"]["arch"] == os.uname().machine  # and nothing of ARA in it
    lean = str(PLAYBOOKS / "kdo/detect.yml")
    assert ara.playbooks() == [(lean, "completed", 1)] * 2
    assert '"kdo_facts"' in ara.everything()  # facts of hosts are kept there: whoever reads ARA reads them


@pytest.mark.skipif(bool(possible()), reason=possible() or "it can")
def test_no_secret_of_a_host_is_recorded(ara, tmp_path):
    host = Simulated(tmp_path / "host")
    env = {**ara.env, "ANSIBLE_CALLBACK_PLUGINS": str(ara.callback)}
    for playbook, words in (
        ("detect.yml", ()),
        ("apply.yml", ("-e", f"kdo_plan={host.plan()}", "--diff")),
    ):
        done = host.play(playbook, *words, **env)
        assert done.code == 0 and "hunter2" not in done.text, done.text
    kept = ara.everything()
    assert len(ara.playbooks()) == 2 and "FTP_PASSWORD=<redacted>" in kept and "hunter2" not in kept
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in kept  # of the change document, the module's only argument
