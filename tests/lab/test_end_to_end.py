# SPDX-License-Identifier: Apache-2.0
"""The main job on real guests over SSH: detect, plan, apply, reboot through GRUB, validate, crash, and read the vmcore.

Every step is the command that a user types, run as its own process. The guests run under software emulation, so their
hypervisor is `tcg` and the layer that is relied on is kdump_reset, or crash_kexec_post_notifiers where the policy says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.lab.aptrepo import build_repository
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.resets import Resets
from orchestrator.lab.treehash import diff_trees
from tests.lab.lifecycle import Kdo, check_capture, configured, crash_and_judge

pytestmark = pytest.mark.lab

NOTIFIERS = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: notifiers}
spec:
  settings: {sysctls: {kernel.unknown_nmi_panic: 1}}
  default: {strategy: [crash_kexec_post_notifiers]}
"""
KNOB = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"
STATE = "/var/lib/kdump-orchestrator"


@pytest.fixture
def artifacts(request, tmp_path: Path) -> Iterator[Path]:
    keep = os.environ.get("KDO_LAB_ARTIFACTS")
    path = Path(keep) / request.node.name if keep else tmp_path
    path.mkdir(parents=True, exist_ok=True)
    yield path


def test_debian_12_from_unconfigured_to_vmcore_twice_and_back(artifacts: Path) -> None:
    spec = ImageSpec(suite="bookworm")
    with Guest(
        build_image(spec), artifacts / "guest", name="debian12", machine=Machine(memory_mb=spec.memory_mb, cpus=2)
    ) as guest:
        guest.wait_ssh()
        kdo = Kdo(guest, artifacts)

        # The same document whichever way the devices are read.
        documents = []
        for source in ("pyudev", "udevadm", "tree"):
            facts = kdo.json("detect", "--udev", source)["hosts"][0]["facts"]
            assert facts["probe"].pop("udev_source") == source
            for volatile in facts["targets"]:
                volatile.pop("free")
            documents.append(facts)
        assert documents[0] == documents[1] == documents[2]
        assert (
            documents[0]["targets"][0]["fs_type"] == "ext4" and documents[0]["signals"]["buses"].get("virtio", 0) >= 2
        )

        # Nothing that reads writes: the whole tree, boot files included, before and after.
        before = guest.tree_hash()
        found = kdo.json("detect")["hosts"][0]
        assert found["platform"]["arch"] == "x86_64" and found["platform"]["hypervisor"] == "tcg"
        assert not found["platform"]["ambiguous"] and found["platform"]["role"] == "guest"
        kdo("explain", "debian12")
        plan_file = artifacts / "plan.json"
        plan = kdo.json("plan", "-o", str(plan_file), code=2)
        kdo("validate", code=2)
        kdo("apply", str(plan_file), "--check", code=2)
        assert diff_trees(before, guest.tree_hash()) == []

        host = plan["hosts"][0]
        assert (host["strategy"], host["action"], host["status"]) == ("kdump_reset", "reboot", "changes")

        # Exactly the plan, as a transaction; a second run has nothing left but the reboot.
        done = kdo.json("apply", str(plan_file), "-y", code=2)
        assert done["hosts"][0]["state"] == "committed" and done["pending_reboot"] == ["debian12"]
        assert kdo.json("plan", code=2)["changes"] == 0
        kdo("apply", str(plan_file), "-y", code=6)  # the host has moved on

        booted = Resets(guest)
        after = kdo.json("apply", "-y", "--reboot", code=0)
        booted.end()
        assert after["pending_reboot"] == [] and after["validation"][0]["status"] == "pass"
        assert guest.read("grep -o 'crashkernel=[^ ]*' /proc/cmdline") == "crashkernel=384M-:128M"
        kdo("validate")
        assert kdo.json("plan")["hosts"][0]["status"] == "none"
        assert guest.read(f"cat {KNOB}") == "N"
        check_capture(crash_and_judge(guest, artifacts / "reset"))

        # The other strategy: set at run time and for the next boot, without a reboot; then crash again.
        policy = artifacts / "notifiers.yaml"
        policy.write_text(NOTIFIERS)
        changed = kdo.json("apply", "-p", str(policy), "-y")
        assert changed["hosts"][0]["state"] == "committed" and changed["validation"][0]["status"] == "pass"
        assert guest.read(f"cat {KNOB}") == "Y" and "crash_kexec_post_notifiers" in guest.read(
            "cat /boot/grub/grub.cfg"
        )
        assert guest.read("cat /proc/sys/kernel/unknown_nmi_panic") == "1"
        check_capture(crash_and_judge(guest, artifacts / "notifiers"))
        assert guest.read(f"cat {KNOB}") == "Y"  # it came back from the boot arguments
        kdo("validate", "-p", str(policy))

        # And back: both transactions undone, the tree is what it was.
        assert kdo.json("rollback", "debian12", "-y")["hosts"][0]["state"] == "rolled-back"
        assert guest.read(f"cat {KNOB}") == "N"
        kdo("validate")
        assert kdo.json("rollback", "debian12", "-y")["hosts"][0]["state"] == "rolled-back"
        after_all = guest.tree_hash()
        was, now = configured(before), configured(after_all)
        assert {p: (was.get(p), now.get(p)) for p in was.keys() | now.keys() if was.get(p) != now.get(p)} == {}
        for path in ("/boot/grub/grub.cfg", "/etc/default/kdump-tools"):  # these with their times, too
            assert before["files"][path] == after_all["files"][path]
        print(json.dumps(kdo.seconds))


@pytest.mark.lab_full
def test_debian_13_with_notifiers(artifacts: Path) -> None:
    spec = ImageSpec(suite="trixie")
    policy = artifacts / "notifiers.yaml"
    policy.write_text(NOTIFIERS)
    with Guest(
        build_image(spec), artifacts / "guest", name="debian13", machine=Machine(memory_mb=spec.memory_mb)
    ) as guest:
        guest.wait_ssh()
        kdo = Kdo(guest, artifacts)
        booted = Resets(guest)
        # This image has a menu without a choice for one boot, so the arguments cannot be tried first.
        done = kdo.json("apply", "-p", str(policy), "-y", "--reboot", "--no-trial")
        booted.end()
        assert done["hosts"][0]["rebooted"] and done["validation"][0]["status"] == "pass"
        assert guest.read("grep -o 'crashkernel=[^ ]*' /proc/cmdline") == "crashkernel=512M-:192M"
        assert guest.read(f"cat {KNOB}") == "Y"
        check_capture(crash_and_judge(guest, artifacts / "notifiers"))
        print(json.dumps(kdo.seconds))


def test_debian_12_without_kdump_tools(artifacts: Path) -> None:
    spec = ImageSpec(suite="bookworm", with_kdump=False)
    image = build_image(spec)
    machine = Machine(memory_mb=spec.memory_mb, apt_repository=build_repository(image, "bookworm"))
    with Guest(image, artifacts / "guest", name="plain", machine=machine) as guest:
        guest.wait_ssh()
        kdo = Kdo(guest, artifacts)
        before = guest.tree_hash()
        plan = kdo.json("plan", code=2)["hosts"][0]
        assert next(c["kind"] for c in plan["changes"]) == "package"
        assert diff_trees(before, guest.tree_hash()) == []
        booted = Resets(guest)
        done = kdo.json("apply", "-y", "--reboot", "--no-trial")
        booted.end()
        assert done["hosts"][0]["state"] == "committed" and done["validation"][0]["status"] == "pass"
        check_capture(crash_and_judge(guest, artifacts / "reset"))
        assert kdo.json("rollback", "plain", "-y")["hosts"][0]["state"] == "rolled-back"
        assert guest.ssh("test -e /etc/default/kdump-tools", check=False).returncode != 0
        assert "crashkernel=" not in guest.read("cat /boot/grub/grub.cfg")
        print(json.dumps(kdo.seconds))
