# SPDX-License-Identifier: Apache-2.0
"""The Red Hat family's files, loader entries and rpm database on a guest: the whole life cycle, with GRUB's own blscfg.

What is real and what is laid out: see :mod:`orchestrator.lab.redhat`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.treehash import diff_trees
from orchestrator.lab.vmcore import PANIC, panic_of
from orchestrator.planning.steps import NO_TRIAL
from tests.lab.lifecycle import Kdo, Record, Resets, changed, crash

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]

SPEC = ImageSpec(suite="trixie", boot="grub-bls", initramfs="dracut", with_kdump=False)
ENTRIES = "grep -h ^options /boot/loader/entries/*.conf"
GRUBENV = "grub-editenv /boot/grub2/grubenv list | grep -v '^next_entry=$'"


def test_life_cycle_with_loader_entries(artifacts: Path) -> None:
    record = Record("almalinux-9-layout", "redhat", "files of 9.6 on Debian 13", "", "grub-bls, BIOS", "local")
    try:
        live(artifacts, record)
        record.outcome, record.where = "passed", ""
    except BaseException as error:
        record.outcome, record.error = "failed", str(error)[-4000:]
        raise
    finally:
        record.keep()
        print(json.dumps(asdict(record)))


def live(home: Path, record: Record) -> None:
    with record.stage("image"):
        image = build_image(SPEC)
    plan_file = home / "plan.json"
    with Guest(image, home / "guest", name="alma9", machine=Machine(memory_mb=SPEC.memory_mb)) as guest:
        with record.stage("boot"):
            guest.wait_ssh(600)
        record.kernel = guest.read("uname -r")
        arguments, environment = guest.read("cat /proc/cmdline"), guest.read(GRUBENV)
        assert "crashkernel=" not in arguments and "kexec-tools-2.0.29-1.el9" in guest.read("rpm -qa")
        kdo, before = Kdo(guest, home), guest.tree_hash()
        with record.stage("plan"):
            (host,) = kdo.json("plan", "-o", str(plan_file), code=2)["hosts"]
        assert (host["status"], host["action"]) == ("changes", "reboot"), host
        record.strategy, record.trial = host["strategy"], not [n for n in host["notes"] if NO_TRIAL in n]
        assert record.trial, host["notes"]
        with record.stage("dry run"):
            kdo("apply", str(plan_file), "--reboot", "--check", code=2)
        assert diff_trees(before, guest.tree_hash()) == []

        with record.stage("apply"), Resets(guest):
            done = kdo.json("apply", str(plan_file), "--reboot", "-y", timeout=1800)
        (outcome,) = done["hosts"]
        assert outcome["state"] == "committed" and outcome["rebooted"] and not outcome["error"], done
        assert done["validation"][0]["status"] == "pass", done["validation"]
        guest.wait_ssh(600)
        running = guest.read("cat /proc/cmdline")
        assert running.count("crashkernel=") == 1
        assert all(line.count("crashkernel=") == 1 for line in guest.read(ENTRIES).splitlines())
        assert "trial" not in guest.read("ls /boot/loader/entries")
        with record.stage("validate"):
            kdo("validate")
        assert kdo.json("plan")["hosts"][0]["status"] == "none"

        with record.stage("crash"):
            capture = crash(guest)
        words = capture.command_line.split()
        assert words.count("nr_cpus=1") == 1 and words.count("reset_devices") == 1, capture.command_line
        assert not [w for w in words if w.startswith("crashkernel=")]
        with record.stage("vmcore"):
            path = guest.read("ls -d /var/crash/127.0.0.1-*/vmcore | tail -n 1")
            core = guest.copy_from(path, home / "vmcore")
            assert panic_of(core, home / "dmesg.txt") == (PANIC, [])
        assert guest.read("cat /proc/cmdline") == running  # the boot after the crash was the default's

        with record.stage("rollback"):
            (back,) = kdo.json("rollback", "alma9", "-y")["hosts"]
        assert back["state"] == "rolled-back", back
        differs = changed(before, guest.tree_hash())
        differs.pop("/boot/grub2/grubenv", None)  # its meaning is compared: GRUB writes it at each boot
        assert differs == {}
        assert guest.read(GRUBENV) == environment
        with record.stage("reboot"):
            guest.reboot(600)
        assert guest.read("cat /proc/cmdline") == arguments
