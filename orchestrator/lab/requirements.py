# SPDX-License-Identifier: Apache-2.0
"""The Debian packages that the lab needs on this machine, and a way to get them.

Each function takes the architectures of the guests; nothing is asked for that these do not need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.lab.arches import ARCHES, NATIVE
from orchestrator.lab.process import LabError, run

PACKAGES: Final[tuple[str, ...]] = (
    "apt-utils",  # apt-ftparchive, for the guests' own repository
    "dosfstools",  # mkfs.fat: an EFI system partition
    "e2fsprogs",  # mke2fs -d: a file system without a loop device
    "fdisk",  # sfdisk
    "makedumpfile",  # judges a dump on the controller
    "mmdebstrap",
    "mtools",  # the seed of a guest from somebody's own image
    "openssh-client",
    "qemu-utils",
)
# Programs of another architecture in the file system of a guest that is being made
FOREIGN_PACKAGES: Final = ("arch-test", "binfmt-support", "qemu-user-static")
BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
APT_SECONDS: Final = 900


def packages(arches: Sequence[str] = (NATIVE,)) -> list[str]:
    """Names of what guests of ``arches`` need."""
    names = set(PACKAGES)
    for arch in arches:
        names.update(ARCHES[arch].packages, FOREIGN_PACKAGES if arch != NATIVE else ())
    return sorted(names)


def missing(arches: Sequence[str] = (NATIVE,)) -> list[str]:
    """Names of required packages that are not installed."""
    names = packages(arches)
    listed = run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names],
        stage="look for the lab's packages",
        timeout=30,
        check=False,  # exit code 1: at least one is unknown
    )
    installed = {line.split()[0] for line in listed.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in installed]


def install(arches: Sequence[str] = (NATIVE,)) -> list[str]:
    """Install what is missing with apt-get and return the names; nothing is done when nothing is missing.

    Raises :class:`LabError`, with the one command to run, for anybody but root.
    """
    wanted = missing(arches)
    if not wanted:
        return []
    if os.geteuid() != 0:
        raise LabError(
            f"the lab needs {', '.join(wanted)}",
            where="install the lab's packages",
            why="only root can install packages",
            fix=f"sudo apt-get install --no-install-recommends {' '.join(wanted)}",
        )
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-q", "update"], stage="apt-get update", timeout=APT_SECONDS, env=env)
    run(
        ["apt-get", "-q", "-y", "--no-install-recommends", "install", *wanted],
        stage="install the lab's packages",
        timeout=APT_SECONDS,
        env=env,
    )
    return wanted


def require(arches: Sequence[str] = (NATIVE,)) -> None:
    """Raise :class:`LabError` unless every package is there; never installs anything.

    As root it also has this kernel start programs of ``arches``: a machine without systemd does not at its boot.
    """
    wanted = missing(arches)
    if wanted:
        raise LabError(
            f"the lab needs {', '.join(wanted)}",
            where="check the lab's packages",
            fix=f"apt-get install --no-install-recommends {' '.join(wanted)}",
        )
    foreign = [arch for arch in arches if arch != NATIVE]
    if foreign and os.geteuid() == 0:
        _enable(foreign)


def _enable(arches: Sequence[str]) -> None:
    stage = "let this kernel start programs of other architectures"
    if not (BINFMT / "register").exists():
        run(["mount", "-t", "binfmt_misc", "binfmt_misc", BINFMT], stage=stage, timeout=30)
    for arch in arches:
        if not (BINFMT / f"qemu-{arch}").exists():
            run(["update-binfmts", "--enable", f"qemu-{arch}"], stage=stage, timeout=30)
