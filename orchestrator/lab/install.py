# SPDX-License-Identifier: Apache-2.0
"""Finishes an image by a first boot: the guest's own tools install its boot loader and write its menu.

The kernel of that first boot is started by QEMU itself. What follows is what Debian's installer runs: grub-install and
update-grub, or bootctl and kernel-install, on real partitions under the firmware that will boot them. The package's own
GRUB snippet of kdump-tools goes before: the menu's arguments have no ``crashkernel=``.

A root on LVM (and encryption) needs the device mapper, so the first boot makes it on a second disk, copies itself there,
and finishes that copy from inside, in a chroot; the second disk is the image.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from orchestrator.lab import rootfs
from orchestrator.lab.arches import NATIVE
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.layout import ARGUMENTS, DISK, EFI_VARIABLES, HOST_KEY, INITRD, KERNEL
from orchestrator.lab.process import LabError, run
from orchestrator.lab.spec import ImageSpec

SECONDS: Final = 1800  # generous: an emulated guest on a busy machine
COMMAND_SECONDS: Final = 900
MIB: Final = 1 << 20
ESP_MIB: Final = 384  # FAT32 has at least 65525 clusters, and mkfs.fat makes them of 4 KiB on a disk of this size
BOOT_MIB: Final = 384
PREP_MIB: Final = 8
KDUMP_SNIPPET: Final = "/etc/default/grub.d/kdump-tools.cfg"
GROUP: Final = "lab"
ROOT: Final = f"/dev/mapper/{GROUP}-root"
COPY: Final = "/mnt"
SELF: Final = "/media"  # the running root without what is mounted on it
KEY: Final = "/etc/keys/root.key"


@dataclass(frozen=True)
class Partition:
    """One partition: its label is that of its file system (PReP has none); ``start`` and ``size`` are in MiB."""

    label: str
    kind: str  # sfdisk's type
    start: int
    size: int


def partitions(spec: ImageSpec) -> list[Partition]:
    """The disk of ``spec`` in order; the last partition is the root's, and has what the others leave."""
    wanted = []
    if spec.loader.prep:
        wanted.append(("PReP", "41", PREP_MIB))
    if spec.uefi:
        wanted.append(("ESP", "U", ESP_MIB))
    if spec.has_boot_partition:
        wanted.append(("boot", "L", BOOT_MIB))
    found, start = [], 1
    for label, kind, size in wanted:
        found.append(Partition(label, kind, start, size))
        start += size
    return [*found, Partition("root", "L", start, spec.disk_mb - start - 1)]  # the last MiB is GPT's second table


def install(spec: ImageSpec, root: Path, image: Path, work: Path, cache: Path) -> dict[str, float]:
    """Make ``image``'s disk (and firmware variables) from the tree ``root``; returns the seconds of each stage."""
    if spec.storage != "plain" and (spec.uefi or spec.arch != NATIVE):
        raise LabError("only an x86_64 BIOS starts a root on LVM here", where="install the guest")
    started = time.monotonic()
    stage = work / "stage"
    stage.mkdir()
    shutil.copyfile(image / HOST_KEY, stage / HOST_KEY)
    if spec.firmware is not None:
        shutil.copyfile(spec.firmware.variables, stage / EFI_VARIABLES)
    keep_kernel(spec, root, stage)
    machine = Machine.of(spec)
    _disk(spec, root, stage / DISK, work)
    made = time.monotonic()
    finished = work / "first-boot" / DISK
    if spec.storage != "plain":
        finished = _second_disk(spec, work)
        drive = ("-drive", f"if=none,id=d1,file={finished},format=qcow2,cache=unsafe", "-device",
                 "virtio-blk-pci,drive=d1")  # fmt: skip
        machine = replace(machine, extra=machine.extra + drive)
    with Guest(stage / DISK, work / "first-boot", name="first-boot", machine=machine, cache=cache) as guest:
        guest.wait_ssh()
        up = time.monotonic()
        for command in _commands(spec, rootfs.kernel_releases(root)):
            guest.ssh(command, COMMAND_SECONDS)
        guest.ssh("nohup sh -c 'sleep 0.3; systemctl poweroff' >/dev/null 2>&1 &")
        guest.wait_reset()
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", finished, image / DISK],
        stage="make the qcow2", timeout=600)  # fmt: skip
    if spec.firmware is not None:
        shutil.copyfile(guest.variables, image / EFI_VARIABLES)
    return {"disk": made - started, "first boot to ssh": up - made, "install": time.monotonic() - up}


def keep_kernel(spec: ImageSpec, root: Path, image: Path) -> None:
    """Put beside a disk what QEMU starts when no boot loader is to: the newest kernel, its initrd, its arguments."""
    release = rootfs.kernel_release(root)
    shutil.copyfile(rootfs.kernel_image(root, release), image / KERNEL)
    shutil.copyfile(root / f"boot/initrd.img-{release}", image / INITRD)
    (image / ARGUMENTS).write_text(f"root=LABEL=root ro {spec.arguments}\n", encoding="utf-8")


def _disk(spec: ImageSpec, root: Path, disk: Path, work: Path) -> None:
    if spec.storage != "plain":
        spec = replace(spec, storage="plain")  # what it copies itself from is one file system, and thrown away
    raw = work / "disk.raw"
    parts = _partition(spec, raw)
    trees = {"root": root}
    if spec.has_boot_partition:
        trees["boot"] = (root / "boot").rename(work / "boot")
        (root / "boot").mkdir()
    if spec.uefi:
        (trees.get("boot", root / "boot") / "efi").mkdir(exist_ok=True)
    for part in parts:
        if part.label == "PReP":
            continue
        if part.label == "ESP":
            run(["mkfs.fat", "-F", "32", "-n", part.label, f"--offset={part.start * MIB // 512}", raw,
                 str(part.size * 1024)], stage="make the EFI system partition", timeout=60)  # fmt: skip
        else:
            run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", part.label, "-m", "0", "-E", f"offset={part.start * MIB}",
                 "-d", trees[part.label], raw, f"{part.size}M"],
                stage=f"make the file system {part.label}", timeout=600)  # fmt: skip
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], stage="make the first disk", timeout=600)
    raw.unlink()


def _partition(spec: ImageSpec, raw: Path) -> list[Partition]:
    with raw.open("wb") as file:
        file.truncate(spec.disk_mb * MIB)
    parts = partitions(spec)
    table = [f"label: {'gpt' if spec.uefi else 'dos'}"]
    # The flag is for Open Firmware, which starts nothing from a partition without it.
    flag = {"PReP": ", bootable"}
    table += [f"start={p.start}MiB, size={p.size}MiB, type={p.kind}{flag.get(p.label, '')}" for p in parts]
    run(["sfdisk", "-q", raw], stage="partition the disk", timeout=60, stdin="\n".join(table) + "\n")
    return parts


def _second_disk(spec: ImageSpec, work: Path) -> Path:
    raw, disk = work / "second.raw", work / "second.qcow2"
    _partition(spec, raw)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], stage="make the second disk", timeout=60)
    raw.unlink()
    return disk


def _commands(spec: ImageSpec, kernels: list[str]) -> list[str]:
    """What the first boot runs, one shell text after the other."""
    if spec.storage != "plain":
        return _moving(spec, kernels)
    if spec.boot == "systemd-boot":
        return [*spec.loader.install, *(f"kernel-install --verbose add {k} /boot/vmlinuz-{k}" for k in kernels)]
    return [f"rm -f {KDUMP_SNIPPET}", *spec.loader.install]


def _moving(spec: ImageSpec, kernels: list[str]) -> list[str]:
    """Make the second disk's file systems, copy the running one there, and do the rest inside the copy."""
    last = len(partitions(spec))
    boot, device, inside, encrypt = f"/dev/vdb{last - 1}", f"/dev/vdb{last}", f"chroot {COPY}", []
    if spec.storage == "lvm-on-luks":
        # 1000 rounds: the key is no secret here, and the capture kernel has little time and memory
        form = "cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000"
        encrypt = [
            f"mkdir -m 700 /etc/keys && head -c 32 /dev/urandom > {KEY} && chmod 400 {KEY}",
            f"{form} {device} {KEY} && cryptsetup open --key-file {KEY} {device} crypt",
            f"echo crypt UUID=$(cryptsetup luksUUID {device}) {KEY} luks,initramfs > /etc/crypttab",
            "echo KEYFILE_PATTERN=/etc/keys/*.key >> /etc/cryptsetup-initramfs/conf-hook",
            "echo UMASK=0077 > /etc/initramfs-tools/conf.d/keys",
        ]
        device = "/dev/mapper/crypt"
    commands = [
        f"rm -f {KDUMP_SNIPPET}",
        *encrypt,
        f"pvcreate -q {device} && vgcreate -q {GROUP} {device} && lvcreate -q -y -l 100%FREE -n root {GROUP}",
        f"mkfs.ext4 -q -m 0 {ROOT} && mkfs.ext4 -q -L boot {boot}",
        f"mount {ROOT} {COPY} && mkdir {COPY}/boot && mount {boot} {COPY}/boot",
        f"mount --bind / {SELF} && cp -a {SELF}/. {COPY} && umount {SELF}",
        f"printf '%s / ext4 defaults,noatime 0 1\\nLABEL=boot /boot ext4 defaults 0 2\\n' {ROOT} > {COPY}/etc/fstab",
        f"for d in dev proc sys run; do mount --rbind /$d {COPY}/$d; done",
    ]
    if encrypt:
        # kdump-tools makes no initrd in a chroot; this one is what will boot
        no_chroot = "mkdir /tmp/bin && ln -s /bin/false /tmp/bin/ischroot && PATH=/tmp/bin:$PATH"
        for kernel in kernels:
            commands.append(f"{inside} update-initramfs -u -k {kernel}")
            if spec.with_kdump:
                made = f"{no_chroot} /etc/kernel/postinst.d/kdump-tools {kernel} /boot/vmlinuz-{kernel}; rm -r /tmp/bin"
                commands.append(f"{inside} sh -ec '{made}'")
    finish = [f"{inside} grub-install --target=i386-pc /dev/vdb", f"{inside} update-grub", "sync"]
    return [*commands, *finish]
