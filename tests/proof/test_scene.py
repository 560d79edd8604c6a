# SPDX-License-Identifier: Apache-2.0
"""Every recorded host gets a guest that stands in for it, or is told why there is none."""

from pathlib import Path

import pytest

from orchestrator.errors import InvalidInput
from orchestrator.lab.arches import ARCHES
from orchestrator.platforms.classify import classify
from orchestrator.proof.scene import scene, scene_of
from tests.platforms.hosttree import facts_of, load_host

HOSTS = sorted((Path(__file__).parents[1] / "hosts").glob("*.yaml"))


@pytest.mark.parametrize("path", HOSTS, ids=lambda p: p.stem)
def test_a_recorded_host(path, tmp_path):
    facts = facts_of(load_host(path), tmp_path)
    platform = classify(facts)
    if platform.arch not in ARCHES:
        with pytest.raises(InvalidInput) as caught:
            scene_of(facts, platform)
        assert platform.arch in caught.value.problems[0].what
        return
    found = scene_of(facts, platform)
    assert found.spec.arch == platform.arch and found.memory_mb >= 256 and found.cpus >= 1
    same = platform.distribution == "debian" and platform.distribution_version.split(".")[0] in ("11", "12", "13")
    assert same != any("the guest debian13" in text for text in found.unlike)
    assert (platform.hypervisor == "tcg") != any("no layer of it is in the way" in text for text in found.unlike)


def test_a_guest_by_description():
    found = scene("x86_64", "debian13", memory_mb=1536, cpus=1, boot="systemd-boot")
    assert (found.spec.suite, found.spec.boot, found.memory_mb, found.cpus) == ("trixie", "systemd-boot", 1536, 1)
    assert scene("aarch64").spec.boot == "grub-efi"
