# SPDX-License-Identifier: Apache-2.0
"""The architectures of guests: all that a guest of one has that a guest of another has not.

Keys of :data:`ARCHES` are the kernel's own machine names (``uname -m``). Every guest runs under software emulation, and
its file system is made on an x86_64 controller: any other architecture's programs run there by QEMU's user emulation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

Suite = Literal["bullseye", "bookworm", "trixie", "forky"]
Boot = Literal["grub", "grub-efi", "grub-bls", "systemd-boot", "zipl", "direct"]

NATIVE: Final = "x86_64"
SERIAL: Final = ("-serial", "chardev:s0")


@dataclass(frozen=True)
class Firmware:
    """UEFI firmware of this machine: the code, and the variables of a board that was never started."""

    code: Path
    variables: Path


@dataclass(frozen=True)
class Loader:
    """One boot loader: the guest's packages of it, and the commands of the first boot that install it.

    ``prep``: it lies in a PReP partition, the disk's first, where Open Firmware looks for it.
    """

    packages: tuple[str, ...] = ()
    install: tuple[str, ...] = ()
    prep: bool = False


@dataclass(frozen=True)
class Arch:
    """One architecture.

    ``debian`` is Debian's name of it; ``qemu`` the emulator, ``packages`` what has it and its firmware; ``board`` and
    ``cpu`` the machine; ``console`` the value of ``console=``; ``kernel`` the package; ``arguments`` make an emulated
    boot quicker; ``memory_mb`` is enough for kdump-tools' own ``crashkernel=``; ``usual`` are the suite and boot loader
    by which a guest of it is tried when nobody says otherwise.
    """

    debian: str
    qemu: str
    packages: tuple[str, ...]
    board: str
    cpu: str
    console: str
    kernel: str
    memory_mb: Mapping[Suite, int]
    usual: tuple[Suite, Boot]
    loaders: Mapping[Boot, Loader]
    arguments: str = "mitigations=off audit=0 apparmor=0 random.trust_cpu=on"
    security: bool = False  # whether the security archive has all that it lists: old releases lose architectures
    serial: tuple[str, ...] = SERIAL
    disk: str = "virtio-blk-pci"
    network: str = "virtio-net-pci,romfile="
    firmware: Firmware | None = None
    boot_program: tuple[str, ...] = ()  # QEMU arguments of what starts the disk's boot loader, where QEMU has none
    grub_terminal: str = "GRUB_TERMINAL=console\n"
    placeholders: Mapping[str, str] = field(default_factory=dict)  # path → text, while packages are installed
    files: Mapping[str, str] = field(default_factory=dict)  # path → text: mends what the distribution's packages lack
    why_not: str = ""  # why Debian's packages make no guest of it that can kdump; "" = they do

    @property
    def tty(self) -> str:
        """The console's device name."""
        return self.console.split(",")[0]


DIRECT: Final = Loader()

# kexec takes the kernel's address from _text, which /proc/kallsyms lacks without KALLSYMS_ALL: a copy that has it is laid over.
# On arm64 _text is 64 KiB before _stext. See docs/arm64.md, which is for users.
KALLSYMS_WITH_TEXT: Final = {
    "/usr/local/sbin/kallsyms-with-text": """\
#!/bin/sh -e
! grep -q ' _text$' /proc/kallsyms || exit 0
stext=$(sed -n 's/^\\([0-9a-f]*\\) . _stext$/\\1/p' /proc/kallsyms)
umask 077
{
  printf '%s%08x T _text\\n' "${stext%????????}" $((0x${stext#????????} - 0x10000))
  cat /proc/kallsyms
} > /run/kallsyms
mount --bind /run/kallsyms /proc/kallsyms
""",
    "/etc/systemd/system/kallsyms-with-text.service": """\
[Unit]
Description=Let kexec find _text
DefaultDependencies=no
After=local-fs.target
Before=kdump-tools.service
[Service]
Type=oneshot
ExecStart=/bin/sh /usr/local/sbin/kallsyms-with-text
""",
    "/etc/systemd/system/kdump-tools.service.d/kallsyms.conf": """\
[Unit]
Wants=kallsyms-with-text.service
After=kallsyms-with-text.service
""",
}

ARCHES: Final[Mapping[str, Arch]] = {
    "x86_64": Arch(
        debian="amd64",
        qemu="qemu-system-x86_64",
        packages=("ovmf", "qemu-system-x86", "seabios"),
        board="pc",
        # QEMU 7.2 spoils the flags when it emulates cmpxchg16b, with which kernels from 6.12 on manage their memory: they die
        # in their first seconds now and then ("Fatal exception in interrupt"). Without it they use something else.
        cpu="qemu64,-cx16",
        console="ttyS0,115200",
        kernel="linux-image-cloud-amd64",
        security=True,
        memory_mb={"bullseye": 768, "bookworm": 768, "trixie": 1024, "forky": 1024},
        usual=("bookworm", "grub"),
        loaders={
            "grub": Loader(("grub-pc-bin", "grub2-common"), ("grub-install --target=i386-pc /dev/vda", "update-grub")),
            "grub-efi": Loader(
                ("efibootmgr", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "grub2-common", "shim-signed"),
                ("grub-install --target=x86_64-efi --efi-directory=/boot/efi", "update-grub"),
            ),
            "grub-bls": Loader(("kexec-tools", "makedumpfile", "rpm")),  # GRUB itself comes from a newer suite
            "systemd-boot": Loader(("efibootmgr", "systemd-boot"), ("bootctl install",)),
            "direct": DIRECT,
        },
        # clocksource/tsc: the emulated TSC let time run wild.
        arguments="mitigations=off nokaslr audit=0 apparmor=0 no_timer_check clocksource=acpi_pm tsc=unstable "
        "random.trust_cpu=on 8250.nr_uarts=1",
        firmware=Firmware(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
        grub_terminal='GRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n',
    ),
    "aarch64": Arch(
        debian="arm64",
        qemu="qemu-system-aarch64",
        packages=("qemu-efi-aarch64", "qemu-system-arm"),
        # A seed in the device tree makes kexec refuse ("kaslr-seed is not wiped to 0") when KASLR is off.
        board="virt,gic-version=3,dtb-randomness=off",
        cpu="cortex-a57",
        console="ttyAMA0",
        kernel="linux-image-cloud-arm64",
        memory_mb={"bullseye": 2048, "bookworm": 2048, "trixie": 2048, "forky": 2048},
        security=True,
        # trixie's makedumpfile cannot read the memory of its kernel (52 bits of virtual addresses, pages of 4 KiB), bookworm's
        # kexec-tools cannot describe that of its: either says "saved vmcore" and has saved none. The latter can be mended.
        usual=("bookworm", "grub-efi"),
        files=KALLSYMS_WITH_TEXT,
        loaders={
            "grub-efi": Loader(
                ("efibootmgr", "grub-efi-arm64-bin", "grub2-common"),
                ("grub-install --target=arm64-efi --efi-directory=/boot/efi --force-extra-removable", "update-grub"),
            ),
            "direct": DIRECT,
        },
        firmware=Firmware(Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")),
    ),
    "ppc64le": Arch(
        debian="ppc64el",
        qemu="qemu-system-ppc64",
        packages=("qemu-system-ppc",),
        # Mitigations that software emulation does not have; QEMU refuses to start when they are asked for.
        board="pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off",
        cpu="POWER9",
        console="hvc0",
        kernel="linux-image-powerpc64le",
        memory_mb={"bullseye": 2048, "bookworm": 2048, "trixie": 2048, "forky": 2048},
        usual=("bookworm", "grub"),
        loaders={
            "grub": Loader(
                ("grub-ieee1275-bin", "grub2-common"),
                ("grub-install --target=powerpc-ieee1275 --no-nvram /dev/vda1", "update-grub"),
                prep=True,
            ),
            "direct": DIRECT,
        },
    ),
    "s390x": Arch(
        debian="s390x",
        qemu="qemu-system-s390x",
        packages=("qemu-system-misc",),
        board="s390-ccw-virtio",
        cpu="qemu",
        console="ttysclp0",
        kernel="linux-image-s390x",
        memory_mb={"bullseye": 1024, "bookworm": 1024, "trixie": 1024, "forky": 1024},
        usual=("bookworm", "zipl"),
        why_not="Debian's kernels for s390x have no CONFIG_CRASH_DUMP (12) or no CONFIG_KEXEC (13 and later)",
        loaders={"zipl": Loader(("s390-tools",), ("zipl -V",)), "direct": DIRECT},
        serial=("-device", "sclpconsole,chardev=s0"),
        disk="virtio-blk-ccw,bootindex=1",
        network="virtio-net-ccw",
        # kdump-tools' installation runs zipl unless this word is there, and asks the machine, here not the guest
        placeholders={"/etc/zipl.conf": "# crashkernel=\n", "/usr/local/sbin/cio_ignore": "#!/bin/sh\n"},
    ),
    "riscv64": Arch(
        debian="riscv64",
        qemu="qemu-system-riscv64",
        packages=("opensbi", "qemu-system-misc", "u-boot-qemu"),
        board="virt",
        cpu="rv64",
        console="ttyS0,115200",
        kernel="linux-image-riscv64",
        memory_mb={"bullseye": 1536, "bookworm": 1536, "trixie": 1536, "forky": 1536},
        why_not="Debian has no kdump-tools for riscv64",
        usual=("forky", "grub-efi"),
        loaders={
            "grub-efi": Loader(
                ("grub-efi-riscv64-bin", "grub2-common"),
                ("grub-install --target=riscv64-efi --efi-directory=/boot/efi --removable --no-nvram", "update-grub"),
            ),
            "direct": DIRECT,
        },
        boot_program=("-kernel", "/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"),
    ),
}
