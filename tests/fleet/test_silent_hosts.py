# SPDX-License-Identifier: Apache-2.0
"""A host that goes down without a word is unreachable after a while, and nothing waits for it for ever."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.fleet import runner
from orchestrator.fleet.runner import ALIVE, Whom, environment
from tests.sshd import SSHD, Sshd


def extra(run: Path) -> str | None:
    return environment(run).get("ANSIBLE_SSH_EXTRA_ARGS")


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name in ("ANSIBLE_CONFIG", "ANSIBLE_SSH_EXTRA_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path))
    (tmp_path / "cwd").mkdir(mode=0o755)
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_ssh_asks_whether_the_host_is_still_there(run):
    assert extra(run) == ALIVE


@pytest.mark.parametrize("place", ["ansible.cfg", "../.ansible.cfg", "../given.cfg"])
@pytest.mark.parametrize("says", [True, False])
def test_the_users_own_arguments_stay(run, monkeypatch, place, says):
    path = Path(place)
    path.write_text("[ssh_connection]\n" + ("ssh_extra_args = -o Compression=yes %h\n" if says else "retries = 1\n"))
    if "given" in place:
        monkeypatch.setenv("ANSIBLE_CONFIG", place)
    assert extra(run) == (None if says else ALIVE)
    assert environment(run)["ANSIBLE_CONFIG"] == str(path.resolve())


def test_arguments_from_the_environment_stay(run, monkeypatch):
    monkeypatch.setenv("ANSIBLE_SSH_EXTRA_ARGS", "-o ServerAliveInterval=0")
    assert extra(run) is None


def test_a_file_that_is_no_configuration_is_left_to_ansible(run):
    Path("ansible.cfg").write_bytes(b"\xff\xfe no section\n")
    assert extra(run) == ALIVE


@pytest.mark.skipif(not SSHD, reason="needs sshd")
def test_a_host_that_stops_in_the_middle_of_a_task_is_unreachable(tmp_path, monkeypatch):
    """The process that holds the connection stands still, as a kernel does after a panic: nothing closes it."""
    for name in [n for n in os.environ if n.startswith("ANSIBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(runner, "ALIVE", "-o ServerAliveInterval=1 -o ServerAliveCountMax=2")
    stopped = tmp_path / "stopped"
    with Sshd(tmp_path / "s", extra=f"ForceCommand echo $PPID >> {stopped}; kill -STOP $PPID; sleep 60") as server:
        arguments = (
            f"-F none -o UserKnownHostsFile={server.known_hosts(tmp_path / 'known_hosts')} -o IdentitiesOnly=yes"
        )
        inventory = tmp_path / "hosts"
        inventory.write_text(
            f"silent ansible_host=127.0.0.1 ansible_port={server.port} ansible_user={server.user} "
            f"ansible_ssh_private_key_file={server.key} ansible_ssh_common_args='{arguments}' "
            "ansible_python_interpreter=/usr/bin/python3\n"
        )
        began = time.monotonic()
        try:
            answer = runner.run_playbook("detect.yml", Whom((str(inventory),)))["silent"]
        finally:
            for pid in stopped.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
    assert answer.status == "unreachable"
    assert time.monotonic() - began < 50  # before the command on the host would have ended by itself
