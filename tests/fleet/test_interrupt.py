# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of a run: nothing of Ansible stays behind, not even workers that lead sessions of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


def marked(word: bytes) -> list[int]:
    """Processes whose environment holds the word."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_of_ansible_outlives_an_interrupt(tmp_path, number):
    with socket.socket() as silent:  # accepts, and never says a word: an ssh that waits for it
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        inventory = tmp_path / "hosts"
        port = silent.getsockname()[1]
        inventory.write_text(f"slow[1:3] ansible_host=127.0.0.1 ansible_port={port} ansible_ssh_timeout=600\n")
        env = {**os.environ, "KDO_TEST_WORD": str(tmp_path)}
        command = [sys.executable, "-m", "orchestrator", "detect", "-i", str(inventory)]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as kdo:
            word = f"KDO_TEST_WORD={tmp_path}".encode()
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                names = [Path(f"/proc/{p}/comm") for p in marked(word)]
                if sum(n.exists() and n.read_text().strip() == "ssh" for n in names) == 3:
                    break
                time.sleep(0.1)
            else:
                pytest.fail("Ansible never came to its three connections")
            kdo.send_signal(number)
            kdo.communicate(timeout=60)
        assert kdo.returncode == 130
        assert not marked(word)
