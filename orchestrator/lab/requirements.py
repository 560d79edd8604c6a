# SPDX-License-Identifier: Apache-2.0
"""The Debian packages that the lab needs on this machine, and a way to get them."""

from __future__ import annotations

import os
from typing import Final

from orchestrator.lab.process import LabError, run

PACKAGES: Final[tuple[str, ...]] = (
    "apt-utils",  # apt-ftparchive, for the guests' own repository
    "dosfstools",  # mkfs.fat: an EFI system partition
    "e2fsprogs",  # mke2fs -d: a file system without a loop device
    "fdisk",  # sfdisk
    "makedumpfile",  # judges a dump on the controller
    "mmdebstrap",
    "openssh-client",
    "ovmf",  # UEFI firmware
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
)
APT_SECONDS: Final = 900


def missing() -> list[str]:
    """Names of required packages that are not installed, in the order of :data:`PACKAGES`."""
    listed = run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *PACKAGES],
        stage="look for the lab's packages",
        timeout=30,
        check=False,  # exit code 1: at least one is unknown
    )
    installed = {line.split()[0] for line in listed.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in PACKAGES if name not in installed]


def install() -> list[str]:
    """Install what is missing with apt-get and return the names; nothing is done when nothing is missing.

    Raises :class:`LabError`, with the one command to run, for anybody but root.
    """
    wanted = missing()
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


def require() -> None:
    """Raise :class:`LabError` unless every package is there; never installs anything."""
    wanted = missing()
    if wanted:
        raise LabError(
            f"the lab needs {', '.join(wanted)}",
            where="check the lab's packages",
            fix=f"apt-get install --no-install-recommends {' '.join(wanted)}",
        )
