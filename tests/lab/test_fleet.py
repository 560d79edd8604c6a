# SPDX-License-Identifier: Apache-2.0
"""Enforcement and pull mode on a real guest: drift is brought back, a killed controller is gone on from, and the guest judges,
changes and reports itself by a signed bundle, with kdo installed on it."""

from __future__ import annotations

import json
import os
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
from tests.lab.onguest import install_kdo

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]

KNOB = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"
HOST = "debian12"


def states(kdo: Kdo) -> dict[str, int]:
    command = [sys.executable, "-m", "orchestrator", "status", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=kdo.home, check=False)
    found: dict[str, int] = json.loads(done.stdout)["states"]
    return found


def killed_amid(kdo: Kdo) -> None:
    """`kdo enforce`, and a SIGKILL for it while the host is being worked on."""
    command = [sys.executable, "-m", "orchestrator", "enforce", "-i", str(kdo.inventory)]
    with subprocess.Popen(command, cwd=kdo.home, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as enforcing:
        from orchestrator.store import runs
        from orchestrator.store.store import Store

        deadline = time.monotonic() + 300
        with Store(create=True) as store:
            while time.monotonic() < deadline:
                newest = runs.listed(store.database, 1)
                if newest and newest[0].kind == "enforce" and runs.tally(store.database, newest[0].id).get("running"):
                    break
                time.sleep(0.1)
            else:
                pytest.fail("the enforcement never began to change the host")
        enforcing.kill()


def test_drift_is_brought_back_and_a_killed_controller_loses_nothing(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDO_STORE", str(artifacts / "store.db"))
    spec = ImageSpec(suite="bookworm")
    machine = Machine(memory_mb=spec.memory_mb, cpus=2)
    with Guest(build_image(spec), artifacts / "guest", name=HOST, machine=machine) as guest:
        guest.wait_ssh()
        kdo = Kdo(guest, artifacts)
        kdo("sweep", code=2)
        assert states(kdo) == {"drift": 1}
        before = guest.tree_hash()
        assert kdo.json("enforce", "--check", code=2)["chosen"] == [HOST]
        assert diff_trees(before, guest.tree_hash()) == []
        # This image has a menu without a choice for one boot: enforcement tries new arguments first, or leaves the host alone.
        assert kdo.json("enforce", "--reboot", code=3)["came_to"] == {"transaction refused": 1}
        # Its own directory was made; nothing else was touched.
        assert all("/var/lib" in x for x in diff_trees(before, guest.tree_hash())) and states(kdo) == {"drift": 1}
        booted = Resets(guest)
        kdo("apply", "-y", "--reboot", "--no-trial")
        booted.end()
        assert states(kdo) == {"changed": 1}
        kdo("validate")
        # Somebody changes what the policy wants; no reboot is needed to bring it back.
        guest.ssh(f"echo Y > {KNOB}")
        assert kdo.json("enforce")["came_to"] == {"changed": 1} and guest.read(f"cat {KNOB}") == "N"
        assert kdo.json("enforce")["came_to"] == {}
        guest.ssh(f"echo Y > {KNOB}")
        killed_amid(kdo)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:  # the dead controller's lease runs out
            command = [sys.executable, "-m", "orchestrator", "runs", "resume", "last", "--format", "json"]
            resumed = subprocess.run(command, capture_output=True, text=True, cwd=artifacts, check=False)
            if resumed.returncode != 5:
                break
            time.sleep(3)
        assert resumed.returncode == 0 and json.loads(resumed.stdout)["hosts"] == {"changed": 1}, resumed
        assert guest.read(f"cat {KNOB}") == "N"
        kdo("validate")
        trail = [sys.executable, "-m", "orchestrator", "audit", "verify", "--format", "json"]
        found = json.loads(subprocess.run(trail, capture_output=True, text=True, cwd=artifacts, check=True).stdout)
        assert found["broken"] is None and found["entries"] > 10
        print(json.dumps(kdo.seconds))
        _pulls(guest, kdo, artifacts)


def _pulls(guest: Guest, kdo: Kdo, artifacts: Path) -> None:
    """Pull mode with a transaction, on the guest itself."""
    install_kdo(guest)
    os.chdir(artifacts)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "signer"], check=True)
    public = Path("signer.pub").read_text().split()
    Path("allowed").write_text(f'ops@example namespaces="kdump-orchestrator" {public[0]} {public[1]}\n')
    made = [sys.executable, "-m", "orchestrator", "bundle", "create", "--serial", "1", "-o", "fleet.bundle"]
    subprocess.run(made, check=True, capture_output=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "kdump-orchestrator", "-f", "signer", "fleet.bundle"], check=True
    )
    for name in ("fleet.bundle", "fleet.bundle.sig", "allowed"):
        guest.copy_to(Path(name), f"/root/{name}")
    guest.ssh(f"mkdir -p /root/reports; echo Y > {KNOB}")
    pull = "kdo pull --from /root/fleet.bundle --allowed-signers /root/allowed --report /root/reports"
    looked = guest.read(f"{pull} 2>&1; echo code $?", 600)
    assert "code 2" in looked and guest.read(f"cat {KNOB}") == "Y", "without --apply nothing is changed"
    acted = guest.read(f"{pull} --apply 2>&1; echo code $?", 900)
    assert "code 0" in acted and guest.read(f"cat {KNOB}") == "N", acted
    report = json.loads(guest.read("cat /root/reports/*.json"))
    assert report["outcome"]["state"] == "committed" and report["verdict"]["status"] == "pass"
    assert report["bundle"]["signer"] == "ops@example" and report["bundle"]["serial"] == 1
    print("pull", acted)
