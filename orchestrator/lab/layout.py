# SPDX-License-Identifier: Apache-2.0
"""What the directory of one image contains, and the key that may log in to its guests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from orchestrator.lab.process import exclusive, run

DISK: Final = "disk.qcow2"
HOST_KEY: Final = "ssh_host_ed25519_key.pub"
DPKG_STATUS: Final = "dpkg-status"
EFI_VARIABLES: Final = "efi-variables.fd"  # only of an image that UEFI firmware boots: its own non-volatile memory
# Only of a disk without a boot loader: what QEMU starts instead, and the kernel's arguments
KERNEL: Final = "vmlinux"
INITRD: Final = "initrd"
ARGUMENTS: Final = "arguments"


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
