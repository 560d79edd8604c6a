# SPDX-License-Identifier: Apache-2.0
"""Builders of facts: a Debian guest as it is after installation, changed where a test wants it changed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.documents.facts import (
    Boot,
    CpuidLeaf,
    Distribution,
    Facts,
    FileFact,
    GrubConfig,
    Kernel,
    Kexec,
    Memory,
    ProbeInfo,
    Service,
    Signals,
    Target,
)
from orchestrator.documents.platform import Platform

RELEASE = "6.1.0-40-amd64"

KDUMP_TOOLS = """\
# kdump-tools configuration
USE_KDUMP=1
KDUMP_KERNEL=/var/lib/kdump/vmlinuz
KDUMP_INITRD=/var/lib/kdump/initrd.img
KDUMP_COREDIR="/var/crash"
#MAKEDUMP_ARGS="-c -d 31"
#KDUMP_CMDLINE_APPEND="reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1 irqpoll usbcore.nousb"
"""


def file(text: str | None, **more: Any) -> FileFact:
    data = (text or "").encode()
    values: dict[str, Any] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "mode": "0644",
        "text": text,
        "mtime": 10**18,
    }
    return FileFact(**(values | more))


def grub_lines(arguments: str, default: str = "0") -> list[str]:
    linux = f"linux /boot/vmlinuz-{RELEASE} root=UUID=aaaa ro {arguments}".strip()
    return [
        'if [ "${next_entry}" ] ; then',
        'set default="${next_entry}"',
        "else",
        f'set default="{default}"',
        "fi",
        "menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-aaaa' {",
        linux,
        f"initrd /boot/initrd.img-{RELEASE}",
        "}",
        "submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-aaaa' {",
        f"menuentry 'Debian GNU/Linux, with Linux {RELEASE}' --class debian $menuentry_id_option 'gnulinux-{RELEASE}-advanced-aaaa' {{",
        linux,
        "}",
        f"menuentry 'Debian GNU/Linux, with Linux {RELEASE} (recovery mode)' $menuentry_id_option 'gnulinux-{RELEASE}-recovery-aaaa' {{",
        linux + " single",
        "}",
        "}",
    ]


def debian(host: str = "web1", *, arguments: str = "quiet", running: str | None = None, **changes: Any) -> Facts:
    """A Debian 12 KVM guest with 4 GiB. ``arguments`` are in grub.cfg, ``running`` on /proc/cmdline (default: the same)."""
    lines = grub_lines(arguments)
    files = {
        "/etc/default/kdump-tools": file(KDUMP_TOOLS),
        "/etc/default/grub": file('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'),
        f"/var/lib/kdump/initrd.img-{RELEASE}": FileFact(size=30 << 20, mode="0644", mtime=2 * 10**18),
        f"/lib/modules/{RELEASE}/modules.dep": FileFact(size=9000, mode="0644", mtime=10**18),
    }
    facts = Facts(
        host=host,
        probe=ProbeInfo(version="1", euid=0),
        signals=Signals(
            machine="x86_64",
            cpuid=[CpuidLeaf(leaf="0x40000000", signature="KVMKVMKVM")],
            cpu_flags=["hypervisor"],
            kernel_log=["Hypervisor detected: KVM"],
            kernel_log_source="kmsg",
            dmi={"sys_vendor": "QEMU"},
        ),
        kernel=Kernel(
            release=RELEASE,
            cmdline=f"BOOT_IMAGE=/boot/vmlinuz-{RELEASE} root=UUID=aaaa ro {arguments if running is None else running}",
            config={"KEXEC": "y", "KEXEC_FILE": "y", "CRASH_DUMP": "y", "KVM_GUEST": "y"},
            symbols=["kvm_crash_shutdown", "machine_ops", "native_machine_crash_shutdown"],
            post_notifiers="N",
            modules=["virtio_blk", "virtio_net"],
            sysctls={"kernel/panic_on_oops": "0"},
            lockdown="[none] integrity confidentiality",
        ),
        kexec=Kexec(supported=True, crash_loaded=False, crash_size=0, load_disabled=0, limit_panic=-1),
        memory=Memory(total=4 << 30, system_ram=(4 << 30) - (1 << 20), page_size=4096, cpus=2),
        targets=[
            Target(
                path="/var/crash",
                exists=True,
                mount_point="/",
                fs_type="ext4",
                read_only=False,
                size=20 << 30,
                free=10 << 30,
            )
        ],
        distribution=Distribution(id="debian", version_id="12", codename="bookworm"),
        boot=Boot(
            markers=["/boot/grub", "/etc/default/grub", "/etc/default/grub.d"],
            tools=["update-grub", "grub-mkconfig", "kdump-config", "kexec", "apt-get"],
            grub=GrubConfig(
                path="/boot/grub/grub.cfg", sha256=hashlib.sha256("\n".join(lines).encode()).hexdigest(), lines=lines
            ),
        ),
        files=files,
        packages={"kdump-tools": "1:1.8.1", "makedumpfile": "1:1.7.2-1", "kexec-tools": "1:2.0.25-3"},
        package_manager="dpkg",
        services={"kdump-tools": Service(load="loaded", enabled="enabled", active="active")},
    )
    return msgspec.structs.replace(facts, **changes) if changes else facts


PLATFORM = Platform(
    arch="x86_64",
    hypervisor="kvm",
    role="guest",
    family="debian",
    distribution="debian",
    distribution_version="12",
    boot_stack="grub",
)


def platform(**changes: Any) -> Platform:
    return msgspec.structs.replace(PLATFORM, **changes)


def kernel(facts: Facts, **changes: Any) -> Facts:
    return msgspec.structs.replace(facts, kernel=msgspec.structs.replace(facts.kernel, **changes))


# name → (os-release ID, VERSION_ID, kernel, package, its version)
RED_HATS = {
    "el8": ("rhel", "8.10", "4.18.0-553.el8_10.x86_64", "kexec-tools", "2.0.26-14.el8"),
    "el9": ("almalinux", "9.4", "5.14.0-427.13.1.el9_4.x86_64", "kexec-tools", "2.0.27-8.el9"),
    "fedora": ("fedora", "41", "6.11.4-301.fc41.x86_64", "kdump-utils", "1.0.43-3.fc41"),
    "s390x": ("rhel", "10.0", "6.12.0-55.9.1.el10_0.s390x", "kdump-utils", "1.0.54-5.el10"),
}
MACHINE = "0123456789abcdef0123456789abcdef"


def red_hat_file(name: str) -> str:
    """A file as such a release installs it, in tests/data/redhat (written for these tests)."""
    return (Path(__file__).parent / "data" / "redhat" / name).read_text()


def redhat(name: str = "el9", *, arguments: str = "quiet", running: str | None = None, **changes: Any) -> Facts:
    """A guest as the installer leaves it, with kdump installed and enabled; ``name`` is a key of :data:`RED_HATS`."""
    distribution, version, release, package, package_version = RED_HATS[name]
    base, s390x = debian(arguments=arguments), name == "s390x"
    entry = f"{MACHINE}-{release}"
    options = f"root=UUID=aaaa ro {arguments}"
    shared = "$kernelopts" if name == "el8" else options
    conf = (
        f"title Linux\nversion {release}\nlinux /vmlinuz-{release}\ninitrd /initramfs-{release}.img\noptions {shared}\n"
    )
    image = FileFact(size=30 << 20, mode="0600", mtime=2 * 10**18)
    files = {
        "/etc/kdump.conf": file(red_hat_file(f"{name}.kdump.conf")),
        "/etc/sysconfig/kdump": file(red_hat_file(f"{name}.sysconfig")),
        "/etc/fstab": FileFact(size=300, mode="0644", mtime=10**18),
        f"/boot/loader/entries/{entry}.conf": file(conf),
        f"/boot/initramfs-{release}kdump.img": image,
        f"/lib/modules/{release}/modules.dep": FileFact(size=9000, mode="0644", mtime=10**18),
    }
    env = {"saved_entry": entry}
    if s390x:
        files["/etc/zipl.conf"] = file("[defaultboot]\ndefaultauto\nprompt=1\ntimeout=5\ntarget=/boot\n")
    else:
        files["/etc/default/grub"] = file(f'GRUB_CMDLINE_LINUX="{arguments}"\nGRUB_ENABLE_BLSCFG=true\n')
    if name == "el8":
        env["kernelopts"] = options
        block = f"# GRUB Environment Block\nsaved_entry={entry}\nkernelopts={options} \n"
        files["/boot/grub2/grubenv"] = file(block + "#" * (1024 - len(block)))
    grub = ['set default="${saved_entry}"', "save_env next_entry", "blscfg"]
    facts = msgspec.structs.replace(
        base,
        kernel=msgspec.structs.replace(
            base.kernel,
            release=release,
            cmdline=f"BOOT_IMAGE=(hd0,gpt2)/vmlinuz-{release} root=UUID=aaaa ro {arguments if running is None else running}",
        ),
        signals=Signals(machine="s390x", sysinfo=["VM00 Control Program: KVM/Linux"]) if s390x else base.signals,
        distribution=Distribution(id=distribution, version_id=version),
        boot=Boot(
            markers=["/boot/loader/entries", *(["/etc/zipl.conf"] if s390x else ["/boot/grub2", "/etc/default/grub"])],
            tools=[
                "grubby",
                "kdumpctl",
                "kexec",
                "dnf",
                "systemctl",
                "dracut",
                *(["zipl"] if s390x else ["grub2-mkconfig"]),
            ],
            grub=GrubConfig() if s390x else GrubConfig(path="/boot/grub2/grub.cfg", sha256="x", lines=grub, env=env),
        ),
        files=files,
        packages={package: package_version, "makedumpfile": "1.7.5-1"},
        package_manager="rpm",
        services={"kdump": Service(load="loaded", enabled="enabled", active="active")},
    )
    return msgspec.structs.replace(facts, **changes) if changes else facts


def redhat_platform(name: str = "el9", **changes: Any) -> Platform:
    """What such a guest is classified as."""
    distribution, version, *_ = RED_HATS[name]
    s390x = {"arch": "s390x", "boot_stack": "zipl"} if name == "s390x" else {"boot_stack": "grub-bls"}
    values = {"family": "redhat", "distribution": distribution, "distribution_version": version, **s390x}
    return platform(**(values | changes))
