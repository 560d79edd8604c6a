# SPDX-License-Identifier: Apache-2.0
"""The whole life cycle on every boot stack, kernel and root file system that Debian's packages make guests of."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from tests.lab.lifecycle import life_cycle

pytestmark = pytest.mark.lab

VARIANTS = {
    "systemd-boot": ImageSpec(suite="trixie", boot="systemd-boot"),
    "debian-11": ImageSpec(suite="bullseye", installed=True),
    "grub-efi": ImageSpec(boot="grub-efi"),
    "grub-own-boot": ImageSpec(separate_boot=True),
    "grub-efi-own-boot": ImageSpec(boot="grub-efi", separate_boot=True),
    "two-kernels": ImageSpec(kernels=("", "bookworm-backports")),
    "newest-kernel": ImageSpec(suite="trixie", kernels=("sid",)),
    "dracut": ImageSpec(suite="trixie", initramfs="dracut, initramfs-tools-core"),
    "lvm": ImageSpec(storage="lvm"),
    "encrypted-root": ImageSpec(storage="lvm-on-luks"),
}


@pytest.mark.lab_full
@pytest.mark.parametrize("spec", VARIANTS.values(), ids=VARIANTS)
def test_life_cycle(spec: ImageSpec, artifacts: Path) -> None:
    print(json.dumps(asdict(life_cycle(spec, artifacts, while_set=every_entry_is_set))))


def every_entry_is_set(guest: Guest) -> None:
    """Each kernel's entries, those of the submenu too, have the arguments once; the recovery entries never had any."""
    if guest.read("ls /boot/efi/loader/entries 2>/dev/null || true"):
        options = guest.read("grep -h ^options /boot/efi/loader/entries/*.conf").splitlines()
        assert options and all(line.count("crashkernel=") == 1 for line in options)
        assert guest.read("cat /etc/kernel/cmdline").count("crashkernel=") == 1
        return
    lines = guest.read("grep -E '^[[:space:]]*linux' /boot/grub/grub.cfg").splitlines()
    entries = [line.split()[1:] for line in lines if "single" not in line.split()]
    kernels = set(guest.read("ls /boot | grep ^vmlinuz-").split())
    assert {Path(kernel).name for kernel, *_ in entries} == kernels
    # The default entry, and each kernel again in the submenu
    assert len(entries) == 1 + len(kernels)
    (wanted,) = re.findall(r"crashkernel=\S+", guest.read("cat /proc/cmdline"))
    for entry in entries:
        assert [word for word in entry if word.startswith("crashkernel=")] == [wanted], entry


def test_systemd_boot_starts_an_entry_once(tmp_path: Path) -> None:
    """What a trial boot by systemd-boot rests on: the one shot is one, and kernel-install makes entries anew."""
    spec = ImageSpec(suite="trixie", boot="systemd-boot")
    machine = Machine.of(spec)
    with Guest(build_image(spec), tmp_path / "guest", name="systemd-boot", machine=machine) as guest:
        guest.wait_ssh()
        entries = "/boot/efi/loader/entries"
        release, machine_id = guest.read("uname -r"), guest.read("cat /etc/machine-id")
        assert guest.read(f"ls {entries}") == f"{machine_id}-{release}.conf"
        usual = default_entry(guest)
        assert usual == f"{machine_id}-{release}.conf"

        # The sort key decides what boots by default: that of the trial must not be the first of all.
        guest.ssh(
            f"sed 's/^sort-key.*/sort-key zz-lab/; s/^options.*/& lab.once=1/' {entries}/{usual} > {entries}/once.conf"
        )
        assert default_entry(guest) == usual
        guest.ssh("bootctl set-oneshot once.conf")
        guest.reboot()
        assert "lab.once=1" in guest.read("cat /proc/cmdline").split()
        guest.reboot()
        assert "lab.once=1" not in guest.read("cat /proc/cmdline").split()

        guest.ssh(f"rm {entries}/once.conf; sed -i 's/$/ lab.always=1/' /etc/kernel/cmdline")
        guest.ssh(f"/etc/kernel/postinst.d/zz-systemd-boot {release} /boot/vmlinuz-{release}")
        assert guest.read(f"ls {entries}") == usual
        options = re.findall(r"^options\s+(.*)$", guest.read(f"cat {entries}/{usual}"), re.MULTILINE)
        assert [words.split().count("lab.always=1") for words in options] == [1]
        guest.reboot()
        assert "lab.always=1" in guest.read("cat /proc/cmdline").split()


def default_entry(guest: Guest) -> str:
    """Name of the entry that systemd-boot starts when nothing is chosen."""
    listed = json.loads(guest.read("bootctl list --json=short"))
    (name,) = [entry["id"] for entry in listed if entry.get("isDefault")]
    return str(name)
