# SPDX-License-Identifier: Apache-2.0
"""`kdo crash-test` on a host that stands for a real one: consent, crash, return, verdict, and how long that holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.resets import Resets
from orchestrator.lab.treehash import diff_trees
from tests.lab.lifecycle import Kdo

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]

OTHER = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: other}
spec:
  default: {strategy: [kdump_reset], settings: {capture: {ensure: [loglevel=5]}}}
"""


def interrupted_while_waiting(kdo: Kdo, resets: Resets, *arguments: str) -> None:
    """`kdo crash-test`, and Ctrl-C as soon as the host has gone down."""
    command = [sys.executable, "-m", "orchestrator", "crash-test", "-i", str(kdo.inventory), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=kdo.home)
    until = time.monotonic() + 900
    while not resets.seconds and process.poll() is None and time.monotonic() < until:
        time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), (process.returncode, out, err)
    assert "--verdict" in err


def test_a_crash_test_from_consent_to_an_expired_proof(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(artifacts / "state"))
    spec, name = ImageSpec(installed=True), "web1"
    with Guest(build_image(spec), artifacts / "guest", name=name, machine=Machine.of(spec)) as guest:
        guest.wait_ssh(600)
        kdo = Kdo(guest, artifacts)
        refused = kdo("crash-test", name, "--consent", name, code=2)
        assert refused == ""  # the reasons are on stderr; the guest is alive
        with Resets(guest, None):
            kdo("apply", "-y", "--reboot", timeout=1800)
        guest.wait_ssh(600)
        assert kdo.json("validate")["hosts"][0]["proof"]["state"] == "never proven"

        before = guest.tree_hash()
        assert "ready for a crash test" in kdo("crash-test", name, "--check")
        assert kdo.json("crash-test", name, "--check")["ready"] is True
        assert diff_trees(before, guest.tree_hash()) == []
        boot = guest.boot_id()
        kdo("crash-test", name, code=130)  # nobody types the name
        assert guest.boot_id() == boot

        with Resets(guest, None):
            done = kdo.json("crash-test", name, "--consent", name, "--cpu", "1", timeout=2400)
        proof = done["proof"]
        print(json.dumps(proof))
        assert proof["outcome"] == "dumped" and proof["cpu"] == 1 and proof["kernel"] == guest.read("uname -r")
        assert proof["dump"]["readers"] == ["makedumpfile"] and "sysrq triggered crash" in proof["dump"]["panic"]
        assert guest.boot_id() != boot
        assert not guest.read("ls /var/lib/kdump-orchestrator | grep crash-test || true")
        (host,) = kdo.json("validate")["hosts"]
        assert host["proof"]["state"] == "proven" and host["proof"]["at"] == proof["at"]
        kdo("crash-test", name, "--verdict", code=2)  # it was told, and it was kept

        # What is wanted of the host is another thing now.
        policy = artifacts / "other.yaml"
        policy.write_text(OTHER)
        kdo("apply", "-p", str(policy), "-y", timeout=1800)
        (host,) = kdo.json("validate", "-p", str(policy))["hosts"]
        assert host["proof"]["state"] == "proof expired" and "has changed" in host["proof"]["why"]

        # And a crash whose dump cannot be written.
        drop_in = "/etc/systemd/system/kdump-tools-dump.service.d"
        guest.ssh(
            f"mkdir -p {drop_in} && cat > {drop_in}/lab.conf",
            stdin="[Service]\nExecStart=\nExecStart=/sbin/reboot -f\n",
        )
        with Resets(guest, None) as resets:
            interrupted_while_waiting(kdo, resets, name, "-p", str(policy), "--consent", name)
            # The verdict is asked for while the host is still on its way.
            done = kdo.json("crash-test", name, "--verdict", "--timeout", "900", code=2, timeout=2400)
        assert done["proof"]["outcome"] == "lost" and "no new dump" in done["proof"]["what"], done["proof"]
        (host,) = kdo.json("validate", "-p", str(policy))["hosts"]
        assert host["proof"]["state"] == "never proven" and "no new dump" in host["proof"]["why"]
