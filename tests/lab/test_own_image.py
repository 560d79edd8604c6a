# SPDX-License-Identifier: Apache-2.0
"""A rehearsal on somebody's own disk: real cloud-init, no login and no host key that the lab knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.lab.aptrepo import build_repository
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.process import run
from orchestrator.lab.rootfs import GUEST_REPOSITORY
from tests.lab.test_proof import dumped, rehearse

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]


def somebodys_image(home: Path) -> Path:
    """A Debian 12 disk with cloud-init and kdump-tools that nobody can log in to."""
    spec = ImageSpec(installed=True)
    repository = build_repository(build_image(spec), spec.suite, packages=("cloud-init",))
    machine = Machine(memory_mb=spec.memory_mb, cpus=spec.cpus, apt_repository=repository)
    with Guest(build_image(spec), home / "maker", name="maker", machine=machine) as guest:
        guest.wait_ssh(600)
        guest.ssh(["tee", "/etc/apt/sources.list"], stdin=f"deb [trusted=yes] {GUEST_REPOSITORY} ./\n")
        guest.ssh("apt-get -q update && apt-get -q -y --no-install-recommends install cloud-init", 900)
        guest.ssh(
            ": > /etc/apt/sources.list; echo 'datasource_list: [NoCloud, None]' > /etc/cloud/cloud.cfg.d/99-lab.cfg"
        )
        guest.ssh("cloud-init clean --logs; rm -rf /root/.ssh /etc/ssh/ssh_host_*; sync")
        guest.stop()
        image = home / "somebodys.qcow2"
        run(["qemu-img", "convert", "-O", "qcow2", guest.disk, image], stage="flatten the image", timeout=600)
    return image


def test_a_rehearsal_on_an_image_with_cloud_init(artifacts: Path) -> None:
    image = somebodys_image(artifacts)
    before = image.read_bytes()[: 1 << 20], image.stat().st_size, image.stat().st_mtime_ns
    dumped(rehearse(artifacts, "--arch", "x86_64", "--image", str(image)))
    assert (image.read_bytes()[: 1 << 20], image.stat().st_size, image.stat().st_mtime_ns) == before
