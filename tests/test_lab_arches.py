# SPDX-License-Identifier: Apache-2.0
"""What the lab knows of each architecture, without starting a guest."""

from pathlib import Path

import pytest

from orchestrator.lab import requirements
from orchestrator.lab.arches import ARCHES
from orchestrator.lab.guest import Guest, Machine, how_ended
from orchestrator.lab.install import partitions
from orchestrator.lab.layout import ARGUMENTS, DISK, EFI_VARIABLES, INITRD, KERNEL
from orchestrator.lab.process import LabError
from orchestrator.lab.spec import ImageSpec
from orchestrator.lab.vmcore import capture_command_line, capture_cpus

FOREIGN = [arch for arch in ARCHES if arch != "x86_64"]
PANIC = "[   42.000000] Kernel panic - not syncing: sysrq triggered crash"


def argv(spec: ImageSpec, home: Path) -> list[str]:
    """QEMU's arguments for a guest of an image directory with the files that such an image has."""
    image = home / "image"
    image.mkdir()
    if spec.firmware:
        (image / EFI_VARIABLES).touch()
    if spec.boot == "direct":
        (image / ARGUMENTS).write_text(f"root=LABEL=root ro {spec.arguments}\n", encoding="utf-8")
        (image / KERNEL).touch()
    guest = Guest(image / DISK, home / "guest", machine=Machine.of(spec), cache=home / "cache")
    if spec.firmware:
        guest.variables.touch()
    return guest._argv(Path("/tmp/sockets"))


@pytest.mark.parametrize("arch", ARCHES)
def test_a_guest_of_each_architecture(arch: str, tmp_path: Path) -> None:
    spec = ImageSpec.usual(arch)
    words = argv(spec, tmp_path)
    assert words[0] == ARCHES[arch].qemu
    assert (spec.architecture.kernel in spec.packages) == ("" in spec.kernels)
    assert f"console={spec.architecture.console}" in spec.arguments.split()
    assert ("-append" in words) is False
    assert any(word.endswith("drive=d0") for word in words) and any(word.endswith("netdev=n0") for word in words)
    assert any("chardev:s0" in word or "chardev=s0" in word for word in words)
    assert any("pflash" in word for word in words) == (spec.firmware is not None)
    assert not [word for word in words if "0.0.0.0" in word]


@pytest.mark.parametrize("arch", ARCHES)
def test_direct_boot_has_kernel_initrd_and_arguments(arch: str, tmp_path: Path) -> None:
    spec = ImageSpec(suite="bookworm", arch=arch, boot="direct")
    words = argv(spec, tmp_path)
    assert Path(words[words.index("-kernel") + 1]).name == KERNEL
    assert Path(words[words.index("-initrd") + 1]).name == INITRD
    assert words[words.index("-append") + 1] == f"root=LABEL=root ro {spec.arguments}"
    assert words.count("-kernel") == 1
    assert not spec.needs_first_boot


def test_the_caller_plays_the_boot_loader(tmp_path: Path) -> None:
    (tmp_path / KERNEL).touch()
    guest = Guest(tmp_path / DISK, tmp_path / "guest", cache=tmp_path / "cache")
    assert guest.append == ""  # a disk of somebody else's
    guest.append = "root=/dev/vda1 crashkernel=256M"
    words = guest._argv(Path("/tmp/sockets"))
    assert words[words.index("-append") + 1] == "root=/dev/vda1 crashkernel=256M"


def test_x86_64_is_called_as_ever() -> None:
    assert ImageSpec().title == "bookworm-kdump"
    assert ImageSpec(suite="trixie", boot="systemd-boot").title == "trixie-kdump-systemd-boot"
    assert (ImageSpec().memory_mb, ImageSpec().cpus, ImageSpec().needs_first_boot) == (768, 2, False)
    assert ImageSpec.usual("x86_64") == ImageSpec()


@pytest.mark.parametrize("arch", FOREIGN)
def test_another_architecture_is_named_and_has_one_cpu(arch: str) -> None:
    spec = ImageSpec.usual(arch)
    assert arch in spec.title.split("-")
    assert spec.cpus == 1


def test_what_there_is_no_guest_of() -> None:
    for wrong in ({"arch": "m68k"}, {"arch": "s390x", "boot": "grub-efi"}, {"boot": "direct", "separate_boot": True}):
        with pytest.raises(LabError):
            ImageSpec(**wrong)
    with pytest.raises(LabError, match="m68k"):
        ImageSpec.usual("m68k")


def test_open_firmware_finds_its_loader_in_the_first_partition() -> None:
    first, root = partitions(ImageSpec.usual("ppc64le"))
    assert (first.label, first.kind, first.start) == ("PReP", "41", 1)
    assert root.label == "root" and root.start == first.start + first.size


def test_only_what_is_asked_for_is_required() -> None:
    usual = requirements.packages()
    assert "qemu-system-x86" in usual and not {"qemu-user-static", "qemu-system-arm"} & set(usual)
    both = requirements.packages(("x86_64", "aarch64"))
    assert {"qemu-user-static", "qemu-system-arm", "qemu-efi-aarch64", "ovmf"} <= set(both)
    assert "qemu-system-ppc" not in both


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        ([], "unknown"),
        ([{"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}}], "reset"),
        ([{"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}], "shutdown"),
        ([{"event": "SHUTDOWN", "data": {"guest": False, "reason": "host-signal"}}], "unknown"),
        (
            [
                {"event": "GUEST_PANICKED", "data": {"action": "pause"}},
                {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-panic"}},
            ],
            "panicked",
        ),
    ],
)
def test_how_a_run_ended(events: list, ended: str) -> None:
    assert how_ended(events) == ended


@pytest.mark.parametrize(
    "said",
    [
        "[    0.000000] Command line: root=LABEL=root nr_cpus=1",
        "[    0.000000] Kernel command line: root=LABEL=root nr_cpus=1",
    ],
)
def test_the_capture_kernels_own_words(said: str) -> None:
    lines = [said.replace("nr_cpus=1", "first"), PANIC, said, "[    0.100000] smp: Brought up 1 node, 1 CPU"]
    assert capture_command_line(lines) == "root=LABEL=root nr_cpus=1"
    assert capture_cpus(lines) == 1
