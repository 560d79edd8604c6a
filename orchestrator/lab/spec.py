# SPDX-License-Identifier: Apache-2.0
"""The kinds of guests that can be built: what each one consists of, and the packages that it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Suite = Literal["bullseye", "bookworm", "trixie"]
Boot = Literal["grub", "grub-efi", "grub-bls", "systemd-boot"]
Initramfs = Literal["initramfs-tools", "dracut", "dracut, initramfs-tools-core"]
Storage = Literal["plain", "lvm", "lvm-on-luks"]

KERNEL: Final = "linux-image-cloud-amd64"
BASE_PACKAGES: Final = (
    "dbus", "e2fsprogs", "file", "iproute2", "kmod", "lz4", "openssh-server", "procps", "python3", "python3-apt",
    "python3-pyudev", "systemd-sysv", "udev",
)  # fmt: skip
BOOT_PACKAGES: Final[dict[Boot, tuple[str, ...]]] = {
    "grub": ("grub-pc-bin", "grub2-common"),
    "grub-efi": ("efibootmgr", "grub-efi-amd64-bin", "grub-efi-amd64-signed", "grub2-common", "shim-signed"),
    "grub-bls": ("kexec-tools", "makedumpfile", "rpm"),  # GRUB itself comes from a newer suite
    "systemd-boot": ("efibootmgr", "systemd-boot"),
}
INITRAMFS_PACKAGES: Final[dict[Initramfs, tuple[str, ...]]] = {
    "initramfs-tools": ("initramfs-tools",),
    "dracut": ("dracut",),
    "dracut, initramfs-tools-core": ("dracut", "initramfs-tools-core"),
}
STORAGE_PACKAGES: Final[dict[Storage, tuple[str, ...]]] = {
    "plain": (),
    "lvm": ("lvm2",),
    "lvm-on-luks": ("cryptsetup", "cryptsetup-initramfs", "lvm2"),
}
KDUMP_PACKAGES: Final = ("kdump-tools", "kexec-tools", "makedumpfile")
# Without panic= a capture kernel that runs out of memory hangs for ever instead of giving the machine back.
PLAIN_ARGUMENTS: Final = "console=ttyS0,115200 panic=10"
# clocksource/tsc: the emulated TSC let time run wild.
FAST_ARGUMENTS: Final = (
    "mitigations=off nokaslr audit=0 apparmor=0 no_timer_check clocksource=acpi_pm tsc=unstable "
    "random.trust_cpu=on 8250.nr_uarts=1"
)


@dataclass(frozen=True)
class ImageSpec:
    """One kind of guest disk.

    ``with_kdump`` installs kdump-tools (configured as the package does it); without it the guest's only apt source
    is :data:`orchestrator.lab.rootfs.GUEST_REPOSITORY`. ``disk_mb`` is the virtual size in MiB. ``fast`` trades
    honesty (mitigations, KASLR, all units) for boot time.

    ``installed``: a first boot has installed the boot loader and written its menu with the distribution's own tools,
    as an installer does; else GRUB is embedded from outside and its menu is written by hand. Everything that follows
    can only be had installed, and is by itself:

    ``boot`` names the boot stack; ``separate_boot`` gives /boot a file system of its own; ``kernels`` are the suites
    that a cloud kernel is taken from ("" is ``suite`` itself), oldest first; ``initramfs`` is what makes initrds:
    kdump-tools only knows how to ask initramfs-tools-core for its own, dracut can stand beside that and make the first
    kernel's; ``storage`` is what the root file system lies on (anything but plain has a separate /boot, too).
    """

    suite: Suite = "bookworm"
    with_kdump: bool = True
    disk_mb: int = 3072
    fast: bool = True
    installed: bool = False
    boot: Boot = "grub"
    separate_boot: bool = False
    kernels: tuple[str, ...] = ("",)
    initramfs: Initramfs = "initramfs-tools"
    storage: Storage = "plain"

    @property
    def memory_mb(self) -> int:
        """Guest memory in MiB that suits the suite: enough for the package's own ``crashkernel=`` to reserve."""
        return {"bullseye": 768, "bookworm": 768, "trixie": 1024}[self.suite] + (256 if self.uefi else 0)

    @property
    def cpus(self) -> int:
        """Emulated CPUs that its kernels survive.

        Under software emulation with two CPUs kernels from 6.12 on die in their first seconds now and then
        (run_timer_softirq, "Fatal exception in interrupt"), whatever is installed.
        """
        return 1 if self.suite == "trixie" or self.kernels != ("",) else 2

    @property
    def uefi(self) -> bool:
        """Whether UEFI firmware boots it."""
        return self.boot in ("grub-efi", "systemd-boot")

    @property
    def has_boot_partition(self) -> bool:
        """Whether /boot is a file system of its own."""
        return self.separate_boot or self.storage != "plain"

    @property
    def needs_first_boot(self) -> bool:
        """Whether the image is finished by a first boot."""
        if self.boot == "grub-bls":  # laid out as a whole, see orchestrator.lab.redhat
            return False
        return self.installed or self != ImageSpec(self.suite, self.with_kdump, self.disk_mb, self.fast)

    @property
    def packages(self) -> tuple[str, ...]:
        """Names given to mmdebstrap, sorted."""
        names = {
            *BASE_PACKAGES,
            *INITRAMFS_PACKAGES[self.initramfs],
            *BOOT_PACKAGES[self.boot],
            *STORAGE_PACKAGES[self.storage],
        }
        if self.with_kdump:
            names.update(KDUMP_PACKAGES)
        if "" in self.kernels:
            names.add(KERNEL)
        return tuple(sorted(names))

    @property
    def arguments(self) -> str:
        """Kernel arguments that the guest's own configuration sets; never a ``crashkernel=``."""
        return f"{PLAIN_ARGUMENTS} {FAST_ARGUMENTS}" if self.fast else PLAIN_ARGUMENTS

    @property
    def title(self) -> str:
        """Readable part of the image's name: the suite, then what differs from the plainest guest."""
        words: list[str] = [self.suite, "kdump" if self.with_kdump else "plain"]
        words += [self.boot] if self.boot != "grub" or self.needs_first_boot else []
        words += ["boot"] if self.separate_boot else []
        words += [f"kernel-{name or self.suite}" for name in self.kernels] if self.kernels != ("",) else []
        words += (
            [self.initramfs.replace(", initramfs-tools-core", "-and-core")]
            if self.initramfs != "initramfs-tools"
            else []
        )
        words += [self.storage] if self.storage != "plain" else []
        return "-".join(words + ([] if self.fast else ["honest"]))
