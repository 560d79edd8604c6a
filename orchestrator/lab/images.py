# SPDX-License-Identifier: Apache-2.0
"""Disk images of guests, built once and kept by the hash of all that goes into them.

One image is a directory ``<cache>/images/<title>-<hash>/``:

* ``disk.qcow2``: the disk with its boot loader; never written to again (guests use overlays);
* ``efi-variables.fd``: the firmware's variables, if it is a disk for UEFI (guests use copies);
* ``vmlinux``, ``initrd``, ``arguments``: what QEMU starts, if the disk has no boot loader;
* ``ssh_host_ed25519_key.pub``: the key by which its guests are known;
* ``dpkg-status``: dpkg's database, so that a repository of exactly the missing packages can be made;
* ``about.json``: what it was made from, and how long that took.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from orchestrator.lab import install, redhat, rootfs
from orchestrator.lab import spec as kinds
from orchestrator.lab.layout import DISK, DPKG_STATUS, HOST_KEY, private_key, public_key
from orchestrator.lab.mirrors import machine_mirrors
from orchestrator.lab.process import LabError, default_cache, exclusive, run
from orchestrator.lab.requirements import require
from orchestrator.lab.spec import ImageSpec

__all__ = ["DISK", "DPKG_STATUS", "HOST_KEY", "ImageSpec", "build_image", "image_name", "private_key", "public_key"]

BUILDER_VERSION: Final = 1  # raise it when this module changes what an image contains
SECTOR: Final = 512
PARTITION_SECTOR: Final = 2048  # the gap before it holds GRUB's core image
GRUB_DIR: Final = "usr/lib/grub/i386-pc"
GRUB_MODULES: Final = (
    "biosdisk", "part_msdos", "ext2", "search", "search_label", "search_fs_uuid", "normal", "configfile", "linux",
    "serial", "terminal", "echo", "test", "ls", "halt", "reboot",
)  # fmt: skip


def build_image(spec: ImageSpec, cache: Path | None = None) -> Path:
    """Return the disk of ``spec``, building it first unless the cache has it (one to five minutes, root only).

    Racing builds of one image: the second waits for the first, and uses its result. An interrupted build
    leaves nothing that a later call would take for an image.
    """
    cache = cache or default_cache()
    key = private_key(cache)
    home = cache / "images" / image_name(spec, key)
    if (home / DISK).is_file():
        return home / DISK
    require(arches=(spec.arch,))
    if os.geteuid() != 0:
        raise LabError("an image can only be built by root", where="build image", fix="run the lab as root")
    stage = f"build image {home.name}"
    with exclusive(
        cache / "locks" / f"{home.name}.lock", stage=stage, timeout=2 * rootfs.BUILD_SECONDS + install.SECONDS
    ):
        if (home / DISK).is_file():
            return home / DISK
        home.parent.mkdir(parents=True, exist_ok=True)
        for stale in home.parent.glob(f".{home.name}.*"):  # of a builder that was killed: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{home.name}.", dir=home.parent) as temporary:
            work = Path(temporary)
            work.chmod(0o755)  # apt's sandbox user reads below it
            _build(spec, cache, work)
            (work / "image").rename(home)
    return home / DISK


def image_name(spec: ImageSpec, key: Path) -> str:
    """Directory name of an image: readable, then a hash of the spec, the builder and the key that may log in."""
    modules = (kinds, rootfs, *([redhat] if spec.boot == "grub-bls" else []))
    makers = [inspect.getsource(module) for module in modules] + [repr(spec.architecture)]
    if spec.needs_first_boot or spec.boot == "direct":
        makers.append(inspect.getsource(install))
    content = json.dumps([BUILDER_VERSION, asdict(spec), makers, public_key(key)], sort_keys=True)
    return f"{spec.title}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _build(spec: ImageSpec, cache: Path, work: Path) -> None:
    started = time.monotonic()
    root = rootfs.bootstrap(spec, machine_mirrors(), work)
    took = {"bootstrap": time.monotonic() - started}
    rootfs.configure(root, spec, public_key(private_key(cache)))
    image = work / "image"
    image.mkdir()
    shutil.copyfile(root / rootfs.HOST_KEY_PUB, image / HOST_KEY)
    shutil.copyfile(root / "var/lib/dpkg/status", image / DPKG_STATUS)
    kernels = rootfs.kernel_releases(root)
    if spec.needs_first_boot:
        took |= install.install(spec, root, image, work, cache)
    elif spec.boot == "direct":
        _without_loader(spec, root, image, work)
    else:
        _embedded(spec, root, image, work)
    took["total"] = time.monotonic() - started
    seconds = {stage: round(value, 1) for stage, value in took.items()}
    about = {"spec": asdict(spec), "kernels": kernels, "seconds": seconds}
    (image / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _without_loader(spec: ImageSpec, root: Path, image: Path, work: Path) -> None:
    install.keep_kernel(spec, root, image)
    raw = work / "disk.raw"
    _partition(raw, spec.disk_mb)
    _filesystem(raw, root, spec.disk_mb)
    _qcow2(raw, image / DISK)


def _qcow2(raw: Path, disk: Path) -> None:
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], stage="make the qcow2", timeout=600)


def _embedded(spec: ImageSpec, root: Path, image: Path, work: Path) -> None:
    core = _grub_core(root, redhat.GRUB_PREFIX if spec.boot == "grub-bls" else "boot/grub")
    raw = work / "disk.raw"
    _partition(raw, spec.disk_mb)
    _filesystem(raw, root, spec.disk_mb)
    _embed(raw, (root / GRUB_DIR / "boot.img").read_bytes(), core)
    _qcow2(raw, image / DISK)


def _grub_core(root: Path, prefix: str) -> bytes:
    """GRUB's core image, made by the guest's own tool: modules and kernel of another release do not fit."""
    early = f"search --no-floppy --label root --set=root\nset prefix=($root)/{prefix}\n"
    (root / "tmp/early.cfg").write_text(early, encoding="utf-8")
    run(
        ["chroot", root, "grub-mkimage", "-O", "i386-pc", "-p", f"(hd0,msdos1)/{prefix}",
         "-c", "/tmp/early.cfg", "-o", "/tmp/core.img", *GRUB_MODULES],
        stage="make GRUB's core image", timeout=120,
    )  # fmt: skip
    core = (root / "tmp/core.img").read_bytes()
    (root / "tmp/early.cfg").unlink()
    (root / "tmp/core.img").unlink()
    if len(core) > (PARTITION_SECTOR - 1) * SECTOR:
        raise LabError(f"GRUB's core image has {len(core)} bytes: too big for the gap", where="make GRUB's core image")
    return core


def _partition(raw: Path, disk_mb: int) -> None:
    with raw.open("wb") as disk:
        disk.truncate(disk_mb << 20)
    table = f"label: dos\nstart={PARTITION_SECTOR}, type=83, bootable\n"
    run(["sfdisk", "-q", raw], stage="partition the disk", timeout=60, stdin=table)


def _filesystem(raw: Path, root: Path, disk_mb: int) -> None:
    size_kb = (disk_mb << 10) - PARTITION_SECTOR * SECTOR // 1024
    run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-m", "0",
         "-E", f"offset={PARTITION_SECTOR * SECTOR}", "-d", root, raw, f"{size_kb}k"],
        stage="make the root file system", timeout=600,
    )  # fmt: skip


def _embed(raw: Path, boot: bytes, core: bytes) -> None:
    """Put GRUB where ``grub-install`` would: boot code into sector 0 (not its partition table), core from sector 1."""
    with raw.open("r+b") as disk:
        disk.write(boot[:440])
        disk.seek(SECTOR)
        disk.write(core)
