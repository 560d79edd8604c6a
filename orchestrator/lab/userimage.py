# SPDX-License-Identifier: Apache-2.0
"""A guest from somebody's own disk image with cloud-init: an overlay on it, and a seed that makes it known and reachable.

The image itself is never written to. The seed is a small FAT file system labelled CIDATA, where cloud-init's NoCloud looks: it
brings the host key by which the guest is known (so host key checking stays on), and the lab's key for root.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from orchestrator.errors import InvalidInput
from orchestrator.lab.layout import DISK, HOST_KEY, private_key, public_key
from orchestrator.lab.process import default_cache, run

SEED: Final = "seed.img"
SEED_KIB: Final = 1024
INFO_SECONDS: Final = 60


def prepare(image: Path, home: Path, cache: Path | None = None) -> tuple[Path, tuple[str, ...]]:
    """(disk for :class:`~orchestrator.lab.guest.Guest`, further QEMU arguments) for the image; ``home`` gets both.

    Raises :class:`InvalidInput` when the file is no disk image that QEMU knows, :class:`LabError` without mtools.
    """
    if not image.is_file():
        raise InvalidInput("there is no such image", where=str(image), fix="give a qcow2 or raw disk with cloud-init")
    told = run(
        ["qemu-img", "info", "--output=json", image], stage="look at the image", timeout=INFO_SECONDS, check=False
    )
    try:
        kind = json.loads(told.stdout)["format"]
    except (ValueError, KeyError):
        raise InvalidInput("that is no disk image", where=str(image), why=told.stderr.strip()[-200:]) from None
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk = home / DISK
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.resolve(), "-F", kind, disk],
        stage="make an overlay on the image", timeout=INFO_SECONDS)  # fmt: skip
    key = home / HOST_KEY.removesuffix(".pub")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rehearsal", "-f", key],
        stage="make the guest's host key", timeout=INFO_SECONDS)  # fmt: skip
    seed = _seed(home, key, public_key(private_key(cache or default_cache())).strip())
    drive = f"if=none,id=seed,format=raw,readonly=on,file={seed}"
    return disk, ("-drive", drive, "-device", "virtio-blk-pci,drive=seed")


def _seed(home: Path, key: Path, login: str) -> Path:
    config = {
        "ssh_deletekeys": False,
        "ssh_keys": {"ed25519_private": key.read_text(), "ed25519_public": Path(f"{key}.pub").read_text().strip()},
        "disable_root": False,
        "users": [{"name": "root", "lock_passwd": True, "ssh_authorized_keys": [login]}],
        "package_update": False,
    }
    texts = {
        "user-data": "#cloud-config\n" + json.dumps(config, indent=1) + "\n",  # JSON is YAML
        "meta-data": json.dumps({"instance-id": f"rehearsal-{home.name}", "local-hostname": "rehearsal"}) + "\n",
    }
    seed = home / SEED
    with seed.open("wb") as file:
        file.truncate(SEED_KIB * 1024)
    run(["mkfs.fat", "-n", "CIDATA", seed], stage="make the seed", timeout=INFO_SECONDS)
    for name, text in texts.items():
        (home / name).write_text(text, encoding="utf-8")
        (home / name).chmod(0o600)
        run(["mcopy", "-i", seed, home / name, f"::{name}"], stage="fill the seed", timeout=INFO_SECONDS)
        (home / name).unlink()
    return seed
