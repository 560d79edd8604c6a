# SPDX-License-Identifier: Apache-2.0
"""Builders of facts for the families besides Debian's and Red Hat's. The stock files were written for these tests."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from orchestrator.documents.facts import Boot, Distribution, Facts, FileFact, GrubConfig, Service
from orchestrator.documents.platform import Platform
from tests.builders import debian, file, platform

SUSE_RELEASE = "6.12.0-160000.5-default"
#: name → (os-release ID, VERSION_ID, version of kdump)
SUSES = {
    "sles16": ("sles", "16.0", "2.1.5-160000.1.2"),
    "sles15": ("sles", "15.6", "2.0.6+git1.g8af7f2c-150600.3.5"),
    "tumbleweed": ("opensuse-tumbleweed", "20261120", "2.1.9-1.1"),
}


def suse_sysconfig(name: str = "sles16") -> str:
    """/etc/sysconfig/kdump as fillup makes it, shortened: comments in the style of sysconfig, every value once."""
    own = """\
## Type:\tstring
## Default:\t"auto"
## ServiceRestart:\tkdump
#
# What kdumptool commandline works from: auto, or one or more crashkernel=... values.
#
KDUMP_CRASHKERNEL="auto"

## Type:        boolean
## Default:\t"true"
#
KDUMP_UPDATE_BOOTLOADER="true"

"""
    cpus = "1" if name == "sles15" else "32"
    return f"""\
## Path:        System/Kernel/Kdump
## Description: Crash Dump Configuration

{"" if name == "sles15" else own}## Type:\tinteger
## ServiceRestart:\tkdump
#
# Number of CPUs of the capture kernel; 0 = all.
#
KDUMP_CPUS={cpus}

KDUMP_KERNELVER=""
KDUMP_COMMANDLINE=""
# Set this variable if you only want to _append_ values.
KDUMP_COMMANDLINE_APPEND=""
KDUMP_AUTO_RESIZE="false"
KEXEC_OPTIONS=""
KDUMP_IMMEDIATE_REBOOT="true"
KDUMP_SAVEDIR="/var/crash"
KDUMP_KEEP_OLD_DUMPS=0
KDUMP_FREE_DISK_SIZE=64
KDUMP_DUMPLEVEL=31
KDUMP_DUMPFORMAT="compressed"
KDUMP_CONTINUE_ON_ERROR="true"
"""


def grub_defaults(arguments: str, first: str = "") -> str:
    """/etc/default/grub as SUSE has it."""
    return (
        f'GRUB_DISTRIBUTOR=""\nGRUB_DEFAULT=saved\nGRUB_CMDLINE_LINUX_DEFAULT="{arguments}"\n'
        f'GRUB_CMDLINE_LINUX="{first}"\nGRUB_DISABLE_RECOVERY="true"\n'
    )


def grub2_lines(release: str, arguments: str) -> list[str]:
    """The lines of interest of a menu."""
    return [
        'if [ "${next_entry}" ] ; then',
        'set default="${next_entry}"',
        "else",
        'set default="${saved_entry}"',
        "fi",
        "menuentry 'SLES 16.0' --class sles $menuentry_id_option 'gnulinux-simple-aaaa' {",
        f"linux /boot/vmlinuz-{release} root=UUID=aaaa {arguments}".strip(),
        f"initrd /boot/initrd-{release}",
        "}",
    ]


def suse(name: str = "sles16", *, arguments: str = "quiet", first: str = "", **changes: Any) -> Facts:
    """A guest as the installer leaves it, kdump installed and enabled. ``first``: what stands in GRUB_CMDLINE_LINUX."""
    distribution, version, kdump = SUSES[name]
    base = debian(arguments=arguments)
    whole = " ".join(part for part in (first, arguments) if part)
    lines = grub2_lines(SUSE_RELEASE, whole)
    sha256 = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    cmdline = f"BOOT_IMAGE=/boot/vmlinuz-{SUSE_RELEASE} root=UUID=aaaa {whole}"
    kernel = f"../usr/lib/modules/{SUSE_RELEASE}/vmlinuz"
    facts = msgspec.structs.replace(
        base,
        kernel=msgspec.structs.replace(base.kernel, release=SUSE_RELEASE, cmdline=cmdline),
        distribution=Distribution(id=distribution, version_id=version),
        boot=Boot(
            markers=["/boot/grub2", "/etc/default/grub"],
            tools=["grub2-mkconfig", "pbl", "kdumptool", "kexec", "zypper", "systemctl", "dracut"],
            grub=GrubConfig(path="/boot/grub2/grub.cfg", sha256=sha256, lines=lines),
        ),
        files={
            "/etc/sysconfig/kdump": file(suse_sysconfig(name), mode="0600"),
            "/etc/sysconfig/bootloader": file('LOADER_TYPE="grub2-efi"\nSECURE_BOOT="yes"\n'),
            "/etc/default/grub": file(grub_defaults(arguments, first)),
            "/boot/vmlinuz": FileFact(size=9 << 20, mode="0644", mtime=10**18, link=f"vmlinuz-{SUSE_RELEASE}"),
            "/var/lib/kdump/initrd": FileFact(size=30 << 20, mode="0600", mtime=2 * 10**18),
            "/var/lib/kdump/kernel": FileFact(size=9 << 20, mode="0644", mtime=10**18, link=kernel),
        },
        packages={"kdump": kdump, "makedumpfile": "1.7.7-1", "kexec-tools": "2.0.29-1"},
        package_manager="rpm",
        services={"kdump": Service(load="loaded", enabled="enabled", active="active")},
    )
    return msgspec.structs.replace(facts, **changes) if changes else facts


def suse_platform(name: str = "sles16", **changes: Any) -> Platform:
    """What such a guest is classified as."""
    distribution, version, _ = SUSES[name]
    values = {"family": "suse", "distribution": distribution, "distribution_version": version, "boot_stack": "grub"}
    return platform(**(values | changes))


AZURE_RELEASE = "6.6.96.2-2.azl3"
AZURE_CONF = "# Written for these tests\npath /var/crash\ncore_collector makedumpfile -l --message-level 1 -d 31\n#force_no_rebuild 1\n"
AZURE_SYSCONFIG = """\
KDUMP_KERNELVER=""
KDUMP_COMMANDLINE=""
KDUMP_COMMANDLINE_REMOVE="hugepages hugepagesz slub_debug quiet log_buf_len swiotlb"
KDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1 reset_devices cgroup_disable=memory udev.children-max=2 panic=10 novmcoredd"
KEXEC_ARGS=""
KDUMP_IMG="vmlinuz"
"""


def azurelinux(*, arguments: str = "quiet", **changes: Any) -> Facts:
    """An Azure Linux 3 guest with kexec-tools, its menu made by grub2-mkconfig."""
    base, release = debian(arguments=arguments), AZURE_RELEASE
    lines = grub2_lines(release, arguments)
    facts = msgspec.structs.replace(
        base,
        kernel=msgspec.structs.replace(
            base.kernel, release=release, cmdline=f"BOOT_IMAGE=/boot/vmlinuz-{release} root=UUID=aaaa {arguments}"
        ),
        distribution=Distribution(id="azurelinux", version_id="3.0"),
        boot=Boot(
            markers=["/boot/grub2", "/etc/default/grub", "/etc/default/grub.d"],
            tools=["grub2-mkconfig", "kdumpctl", "kexec", "systemctl", "dracut"],
            grub=GrubConfig(path="/boot/grub2/grub.cfg", sha256="x", lines=lines),
        ),
        files={
            "/etc/kdump.conf": file(AZURE_CONF),
            "/etc/sysconfig/kdump": file(AZURE_SYSCONFIG),
            "/etc/default/grub": file('GRUB_CMDLINE_LINUX="quiet"\n'),
            f"/boot/initramfs-{release}kdump.img": FileFact(size=30 << 20, mode="0600", mtime=2 * 10**18),
        },
        packages={"kexec-tools": "2.0.27-8.azl3"},
        package_manager="rpm",
        services={"kdump": Service(load="loaded", enabled="enabled", active="active")},
    )
    return msgspec.structs.replace(facts, **changes) if changes else facts


def azurelinux_platform(**changes: Any) -> Platform:
    """What such a guest is classified as."""
    values = {"family": "azurelinux", "distribution": "azurelinux", "distribution_version": "3.0", "boot_stack": "grub"}
    return platform(**(values | changes))


COREOS_RELEASE = "6.11.8-300.fc41.x86_64"


def coreos(*, arguments: str = "quiet", kargs: str | None = None, **changes: Any) -> Facts:
    """A Fedora CoreOS guest. ``kargs``: what rpm-ostree says of the next boot (default: the same as runs)."""
    base = azurelinux(arguments=arguments)
    whole = f"root=UUID=x rw ostree=/ostree/boot.1/fedora-coreos/x/0 {arguments}"
    image = f"/var/lib/kdump/initramfs-{COREOS_RELEASE}kdump.img"
    facts = msgspec.structs.replace(
        base,
        kernel=msgspec.structs.replace(base.kernel, release=COREOS_RELEASE, cmdline=f"BOOT_IMAGE=(hd0,gpt3)/boot/ostree/x/vmlinuz-{COREOS_RELEASE} {whole}"),
        distribution=Distribution(id="fedora", version_id="41", variant_id="coreos", ostree=True, read_only_root=True),
        boot=Boot(
            markers=["/run/ostree-booted", "/ostree", "/boot/loader/entries"],
            tools=["rpm-ostree", "kdumpctl", "kexec", "systemctl", "dracut"],
            kargs=f"{whole.partition(' ostree=')[0]} {arguments}" if kargs is None else kargs,
        ),
        files={
            "/etc/kdump.conf": file(AZURE_CONF),
            "/etc/sysconfig/kdump": file(AZURE_SYSCONFIG),
            image: FileFact(size=30 << 20, mode="0600", mtime=2 * 10**18),
            "/boot/loader/entries/ostree-1.conf": file(f"title Fedora CoreOS\nversion 1\noptions {whole}\nlinux /ostree/x/vmlinuz-{COREOS_RELEASE}\n"),
        },
        packages={"kdump-utils": "1.0.43-3.fc41", "kexec-tools": "2.0.29-2.fc41", "makedumpfile": "1.7.5-13.fc41"},
    )  # fmt: skip
    return msgspec.structs.replace(facts, **changes) if changes else facts


def coreos_platform(**changes: Any) -> Platform:
    """What such a guest is classified as."""
    values = {"family": "ostree", "distribution": "fedora", "distribution_version": "41", "boot_stack": "ostree"}
    return platform(**(values | changes))
