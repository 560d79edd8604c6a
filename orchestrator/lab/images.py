# SPDX-License-Identifier: Apache-2.0
"""Disk images of guests, built once and kept by the hash of all that goes into them.

One image is a directory ``<cache>/images/<suite>-<kdump|plain>-<hash>/``:

* ``disk.qcow2``: MBR disk, real GRUB, one ext4 root; never written to again (guests use overlays);
* ``ssh_host_ed25519_key.pub``: the key by which its guests are known;
* ``dpkg-status``: dpkg's database, so that a repository of exactly the missing packages can be made.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from orchestrator.lab import rootfs
from orchestrator.lab.mirrors import machine_mirrors
from orchestrator.lab.process import LabError, default_cache, exclusive, run
from orchestrator.lab.requirements import require

BUILDER_VERSION: Final = 1  # raise it when this module changes what an image contains
DISK: Final = "disk.qcow2"
HOST_KEY: Final = "ssh_host_ed25519_key.pub"
DPKG_STATUS: Final = "dpkg-status"
SECTOR: Final = 512
PARTITION_SECTOR: Final = 2048  # the gap before it holds GRUB's core image
GRUB_DIR: Final = "usr/lib/grub/i386-pc"
GRUB_MODULES: Final = (
    "biosdisk", "part_msdos", "ext2", "search", "search_label", "search_fs_uuid", "normal", "configfile", "linux",
    "serial", "terminal", "echo", "test", "ls", "halt", "reboot",
)  # fmt: skip


@dataclass(frozen=True)
class ImageSpec:
    """One kind of guest disk.

    ``with_kdump`` installs kdump-tools (configured as the package does it); without it the guest's only apt source
    is :data:`orchestrator.lab.rootfs.GUEST_REPOSITORY`. ``boot`` names the boot stack. ``disk_mb`` is the virtual
    size in MiB. ``fast`` leaves out what emulation makes slow (see :class:`orchestrator.lab.rootfs.RootSpec`).
    """

    suite: rootfs.Suite = "bookworm"
    with_kdump: bool = True
    boot: Literal["grub"] = "grub"
    disk_mb: int = 3072
    fast: bool = True

    @property
    def memory_mb(self) -> int:
        """Guest memory in MiB that suits the suite: enough for the package's own ``crashkernel=`` to reserve."""
        return {"bookworm": 768, "trixie": 1024}[self.suite]


def build_image(spec: ImageSpec, cache: Path | None = None) -> Path:
    """Return the disk of ``spec``, building it first unless the cache has it (one to two minutes, root only).

    Racing builds of one image: the second waits for the first, and uses its result. An interrupted build
    leaves nothing that a later call would take for an image.
    """
    cache = cache or default_cache()
    key = private_key(cache)
    home = cache / "images" / image_name(spec, key)
    if (home / DISK).is_file():
        return home / DISK
    require()
    if os.geteuid() != 0:
        raise LabError("an image can only be built by root", where="build image", fix="run the lab as root")
    stage = f"build image {home.name}"
    with exclusive(cache / "locks" / f"{home.name}.lock", stage=stage, timeout=2 * rootfs.BUILD_SECONDS):
        if (home / DISK).is_file():
            return home / DISK
        home.parent.mkdir(parents=True, exist_ok=True)
        for stale in home.parent.glob(f".{home.name}.*"):  # of a builder that was killed: we hold the lock
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{home.name}.", dir=home.parent) as temporary:
            work = Path(temporary)
            work.chmod(0o755)  # apt's sandbox user reads below it
            _build(spec, key, work)
            (work / "image").rename(home)
    return home / DISK


def image_name(spec: ImageSpec, key: Path) -> str:
    """Directory name of an image: readable, then a hash of the spec, the builder and the key that may log in."""
    content = json.dumps([BUILDER_VERSION, asdict(spec), inspect.getsource(rootfs), public_key(key)], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    return f"{spec.suite}-{'kdump' if spec.with_kdump else 'plain'}-{digest}"


def private_key(cache: Path) -> Path:
    """The cache's own ed25519 key, made on first use; its public half is beside it with ``.pub``."""
    key = cache / "keys" / "id_ed25519"
    with exclusive(cache / "locks" / "key.lock", stage="make the lab's ssh key", timeout=60):
        if not key.is_file():
            key.parent.mkdir(parents=True, exist_ok=True)
            key.parent.chmod(0o700)
            fresh = key.with_suffix(f".{os.getpid()}")
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kdo lab", "-f", fresh],
                stage="make the lab's ssh key", timeout=60)  # fmt: skip
            Path(f"{fresh}.pub").rename(f"{key}.pub")
            fresh.rename(key)  # last: its presence means that both are there
    return key


def public_key(key: Path) -> str:
    """Text of the public half of ``key``."""
    return Path(f"{key}.pub").read_text(encoding="utf-8")


def _build(spec: ImageSpec, key: Path, work: Path) -> None:
    started = time.monotonic()
    root_spec = rootfs.RootSpec(spec.suite, spec.with_kdump, spec.fast)
    root = rootfs.bootstrap(root_spec, machine_mirrors(), work)
    bootstrapped = time.monotonic()
    rootfs.configure(root, root_spec, public_key(key))
    core = _grub_core(root)
    image = work / "image"
    image.mkdir()
    raw = work / "disk.raw"
    _partition(raw, spec.disk_mb)
    _filesystem(raw, root, spec.disk_mb)
    _embed(raw, (root / GRUB_DIR / "boot.img").read_bytes(), core)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image / DISK], stage="make the qcow2", timeout=600)
    shutil.copyfile(root / rootfs.HOST_KEY_PUB, image / HOST_KEY)
    shutil.copyfile(root / "var/lib/dpkg/status", image / DPKG_STATUS)
    took = {"bootstrap": bootstrapped - started, "total": time.monotonic() - started}
    about = {"spec": asdict(spec), "kernel": rootfs.kernel_release(root), "seconds": took}
    (image / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _grub_core(root: Path) -> bytes:
    """GRUB's core image, made by the guest's own tool: modules and kernel of another release do not fit."""
    early = "search --no-floppy --label root --set=root\nset prefix=($root)/boot/grub\n"
    (root / "tmp/early.cfg").write_text(early, encoding="utf-8")
    run(
        ["chroot", root, "grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub",
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
