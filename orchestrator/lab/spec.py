# SPDX-License-Identifier: Apache-2.0
"""The kinds of guests that can be built: what each one consists of, and the packages that it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from orchestrator.lab.arches import ARCHES, NATIVE, Arch, Boot, Firmware, Loader, Suite
from orchestrator.lab.process import LabError

__all__ = ["Boot", "ImageSpec", "Suite"]

Initramfs = Literal["initramfs-tools", "dracut", "dracut, initramfs-tools-core"]
Storage = Literal["plain", "lvm", "lvm-on-luks"]

BASE_PACKAGES: Final = (
    "dbus", "e2fsprogs", "file", "iproute2", "kmod", "lz4", "openssh-server", "procps", "python3", "python3-apt",
    "python3-pyudev", "systemd-sysv", "udev",
)  # fmt: skip
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
PANIC_ARGUMENT: Final = "panic=10"


@dataclass(frozen=True)
class ImageSpec:
    """One kind of guest disk.

    ``arch`` is the kernel's name of its architecture, one of :data:`orchestrator.lab.arches.ARCHES`.
    ``with_kdump`` installs kdump-tools (configured as the package does it); without it the guest's only apt source
    is :data:`orchestrator.lab.rootfs.GUEST_REPOSITORY`. ``disk_mb`` is the virtual size in MiB. ``fast`` trades
    honesty (mitigations, KASLR, all units) for boot time.

    ``installed``: a first boot has installed the boot loader and written its menu with the distribution's own tools,
    as an installer does; else GRUB is embedded from outside and its menu is written by hand. Everything that follows
    can only be had installed, and is by itself:

    ``boot`` names the boot stack (``direct``: the disk has none, QEMU starts the kernel that is kept beside the disk, and
    the caller plays the boot loader with :attr:`orchestrator.lab.guest.Guest.append`); ``separate_boot`` gives /boot a file system of its own; ``kernels`` are the suites
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
    arch: str = NATIVE

    def __post_init__(self) -> None:
        if self.arch not in ARCHES:
            raise LabError(f"there are no guests of {self.arch!r}, only of {', '.join(ARCHES)}", where="choose a guest")
        if self.boot not in self.architecture.loaders:
            known = ", ".join(self.architecture.loaders)
            raise LabError(f"no guest of {self.arch} boots by {self.boot}, only by {known}", where="choose a guest")
        if self.boot == "direct" and (self.separate_boot or self.storage != "plain"):
            raise LabError("a guest without a boot loader has one plain file system", where="choose a guest")

    @classmethod
    def usual(cls, arch: str) -> ImageSpec:
        """The suite, boot loader and kernel by which ``arch`` is tried when nobody says otherwise."""
        if arch not in ARCHES:
            return cls(arch=arch)  # says which there are
        suite, boot = ARCHES[arch].usual
        return cls(suite=suite, boot=boot, arch=arch)

    @property
    def architecture(self) -> Arch:
        """The architecture."""
        return ARCHES[self.arch]

    @property
    def loader(self) -> Loader:
        """The boot loader."""
        return self.architecture.loaders[self.boot]

    @property
    def memory_mb(self) -> int:
        """Guest memory in MiB that suits the suite: enough for the package's own ``crashkernel=`` to reserve."""
        return self.architecture.memory_mb[self.suite] + (256 if self.uefi else 0)

    @property
    def cpus(self) -> int:
        """Emulated CPUs: two where that costs little and has always worked."""
        settled = self.arch == NATIVE and self.suite in ("bullseye", "bookworm") and self.kernels == ("",)
        return 2 if settled else 1

    @property
    def uefi(self) -> bool:
        """Whether UEFI firmware boots it."""
        return self.boot in ("grub-efi", "systemd-boot")

    @property
    def firmware(self) -> Firmware | None:
        """The UEFI firmware that boots it, if that keeps variables."""
        return self.architecture.firmware if self.uefi else None

    @property
    def has_boot_partition(self) -> bool:
        """Whether /boot is a file system of its own."""
        return self.separate_boot or self.storage != "plain"

    @property
    def needs_first_boot(self) -> bool:
        """Whether the image is finished by a first boot."""
        if self.boot in ("direct", "grub-bls"):  # nothing to install, or laid out as a whole (see .redhat)
            return False
        return self.installed or self != ImageSpec(self.suite, self.with_kdump, self.disk_mb, self.fast)

    @property
    def packages(self) -> tuple[str, ...]:
        """Names given to mmdebstrap, sorted."""
        names = {
            *BASE_PACKAGES,
            *INITRAMFS_PACKAGES[self.initramfs],
            *self.loader.packages,
            *STORAGE_PACKAGES[self.storage],
        }
        if self.with_kdump:
            names.update(KDUMP_PACKAGES)
        if "" in self.kernels:
            names.add(self.architecture.kernel)
        return tuple(sorted(names))

    @property
    def arguments(self) -> str:
        """Kernel arguments that the guest's own configuration sets; never a ``crashkernel=``."""
        plain = f"console={self.architecture.console} {PANIC_ARGUMENT}"
        return f"{plain} {self.architecture.arguments}" if self.fast else plain

    @property
    def title(self) -> str:
        """Readable part of the image's name: the suite, then what differs from the plainest guest."""
        words: list[str] = [self.suite, "kdump" if self.with_kdump else "plain"]
        words += [self.arch] if self.arch != NATIVE else []
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
