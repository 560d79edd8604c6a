# SPDX-License-Identifier: Apache-2.0
"""Guests of other architectures, and guests that QEMU itself gives a kernel to."""

from pathlib import Path

import pytest

from orchestrator.lab.arches import ARCHES
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.resets import Resets
from orchestrator.lab.vmcore import wait_capture
from tests.lab.lifecycle import Kdo, read_vmcore

pytestmark = pytest.mark.lab

SECONDS = 1200  # an emulated foreign processor on a busy machine


@pytest.mark.lab_full
@pytest.mark.parametrize("arch", ["aarch64", "ppc64le"])
def test_kdo_sets_up_a_host_that_dumps(arch: str, artifacts: Path) -> None:
    """Through the architecture's own boot loader: set up, rebooted, crashed, and the vmcore read."""
    spec = ImageSpec.usual(arch)
    with Guest(build_image(spec), artifacts / "guest", name=arch, machine=Machine.of(spec)) as guest:
        guest.wait_ssh(SECONDS)
        assert guest.read("uname -m") == arch
        assert "crashkernel=" not in guest.read("cat /proc/cmdline")
        kdo = Kdo(guest, artifacts)
        with Resets(guest):
            (host,) = kdo.json("apply", "--reboot", "-y", timeout=3 * SECONDS)["hosts"]
        assert host["state"] == "committed" and host["rebooted"], host
        assert guest.ended == "reset"
        guest.wait_ssh(SECONDS)
        assert guest.read("cat /proc/cmdline").count("crashkernel=") == 1
        assert guest.read("cat /sys/kernel/kexec_crash_loaded") == "1"

        mark = guest.crash()
        capture = wait_capture(guest, mark, SECONDS)
        assert guest.ended == "reset"
        assert capture.saved and capture.cpus == 1 and "reset_devices" in capture.command_line.split()
        guest.start()
        guest.wait_ssh(SECONDS)
        read_vmcore(guest, artifacts / "vmcore")


@pytest.mark.lab_full
@pytest.mark.parametrize("arch", ["x86_64"])
def test_the_caller_is_the_boot_loader(arch: str, artifacts: Path) -> None:
    """A disk without one: the arguments of the next start are the caller's, and kdump works all the same."""
    spec = ImageSpec(suite=ARCHES[arch].usual[0], arch=arch, boot="direct")
    with Guest(build_image(spec), artifacts / "guest", name=arch, machine=Machine.of(spec)) as guest:
        guest.wait_ssh(SECONDS)
        assert guest.read("cat /proc/cmdline") == guest.append
        guest.append += " crashkernel=160M"
        guest.reboot(SECONDS)
        assert guest.read("cat /proc/cmdline") == guest.append
        assert guest.read("cat /sys/kernel/kexec_crash_loaded") == "1"
        mark = guest.crash()
        assert wait_capture(guest, mark, SECONDS).saved
        guest.start()
        guest.wait_ssh(SECONDS)
        read_vmcore(guest, artifacts / "vmcore")
