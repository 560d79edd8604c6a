# SPDX-License-Identifier: Apache-2.0
"""Which guest stands in for a host: as like it as the lab can build one, and what is unlike, said plainly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.errors import InvalidInput
from orchestrator.lab.arches import ARCHES
from orchestrator.lab.spec import Boot, ImageSpec, Suite

SUITES: Final[dict[str, Suite]] = {"debian11": "bullseye", "debian12": "bookworm", "debian13": "trixie"}
NEAREST: Final = "debian13"  # what stands in for every other distribution
MEMORY_MB: Final = 2048  # a guest gets no more than that unless it is asked for
CPUS: Final = 2


@dataclass(frozen=True)
class Scene:
    """A guest to be built. ``unlike`` says, for people, in what it differs from the host that it stands in for."""

    spec: ImageSpec
    memory_mb: int
    cpus: int
    unlike: tuple[str, ...] = ()
    image: Path | None = None  # somebody's own disk with cloud-init, instead of one of ``spec``

    def require(self) -> None:
        """Raise :class:`InvalidInput` where Debian's packages make no guest that could dump."""
        why = self.spec.architecture.why_not
        if why and self.image is None:
            fix = "give an image of another distribution with --image"
            raise InvalidInput(f"no {self.spec.arch} guest of the lab can kdump", why=why, fix=fix)


def scene(
    arch: str, distro: str = "", *, memory_mb: int | None = None, cpus: int | None = None, boot: str = "",
    unlike: tuple[str, ...] = (),
) -> Scene:  # fmt: skip
    """A guest by description. Raises :class:`InvalidInput` for what the lab cannot build.

    ``distro`` is e.g. ``debian13``; "" is what suits the architecture best; ``boot`` likewise.
    """
    if arch not in ARCHES:
        raise InvalidInput(f"no guest can be made for the architecture {arch!r}", fix=f"one of: {', '.join(ARCHES)}")
    if distro and distro not in SUITES:
        why, fix = (
            "the lab builds Debian's releases",
            f"one of: {', '.join(SUITES)}; or an image of your own with --image",
        )
        raise InvalidInput(f"no guest can be made of {distro!r}", why=why, fix=fix)
    if boot and boot not in ARCHES[arch].loaders:
        known = ", ".join(ARCHES[arch].loaders)
        raise InvalidInput(f"no {arch} guest boots by {boot!r} here", fix=f"one of: {known}")
    usual = ImageSpec.usual(arch)
    spec = replace(usual, installed=True, boot=cast(Boot, boot) if boot else usual.boot,
                   suite=SUITES[distro] if distro else usual.suite)  # fmt: skip
    return Scene(spec, memory_mb or spec.memory_mb, cpus or min(CPUS, spec.cpus), unlike)


def scene_of(facts: Facts, platform: Platform, *, memory_mb: int | None = None, cpus: int | None = None) -> Scene:
    """The guest that stands in for a host."""
    unlike = []
    distro = f"{platform.distribution}{platform.distribution_version.split('.')[0]}"
    if distro not in SUITES:
        unlike.append(f"the host is {platform.distribution} {platform.distribution_version}, the guest {NEAREST}")
        distro = NEAREST
    if platform.hypervisor != "tcg":
        unlike.append(f"the host runs under {platform.hypervisor}, the guest is emulated: no layer of it is in the way")
    total = (facts.memory.total or 0) >> 20
    wanted = memory_mb or (min(total, MEMORY_MB) if total else None)
    if total and wanted and total > wanted:
        unlike.append(f"the host has {total} MiB of memory, the guest {wanted} MiB: the reservation is a smaller one")
    known = ARCHES.get(platform.arch)
    boot = "grub-efi" if platform.boot_stack == "grub" and facts.kernel.efi else platform.boot_stack
    if known is not None and boot not in known.loaders:
        unlike.append(f"the host boots by {boot}, the guest by {known.usual[1]}")
        boot = ""
    return scene(platform.arch, distro, memory_mb=wanted, cpus=cpus or min(facts.memory.cpus or CPUS, CPUS),
                 boot=boot, unlike=tuple(unlike))  # fmt: skip
