# SPDX-License-Identifier: Apache-2.0
"""What a guest's QEMU does when kdo is killed; with sleep(1) in its place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.lab.leash import Leash

KEEPER = """
import subprocess, sys, threading
from orchestrator.lab.leash import Leash
found = []
def start():
    child = subprocess.Popen(["sleep", "600"])
    found.append((child, Leash(child.pid)))
one = threading.Thread(target=start)
one.start()
one.join()
print(found[0][0].pid, found[0][1]._watcher.pid, flush=True)
sys.stdin.read()
"""


def ended(pid: int) -> bool:
    """Gone, or a zombie that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return True


def wait(pid: int) -> bool:
    until = time.monotonic() + 20
    while not ended(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return ended(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_its_keeper(how):
    with subprocess.Popen(
        [sys.executable, "-c", KEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as keeper:
        assert keeper.stdout is not None
        child, watcher = map(int, keeper.stdout.readline().split())
        time.sleep(0.2)
        assert not ended(child)  # the thread that started it has ended, and that is no reason
        os.kill(keeper.pid, how)
        assert wait(child) and wait(watcher)


def test_what_is_let_go_lives_on():
    child = subprocess.Popen(["sleep", "600"])
    leash = Leash(child.pid)
    try:
        leash.release()
        assert leash._watcher.poll() == 0 and child.poll() is None
        leash.release()
    finally:
        child.kill()
        child.wait()
