# SPDX-License-Identifier: Apache-2.0
"""The made-up fleet of `kdo facts --example`: recorded platforms with the files of a freshly installed host.

``python -m tests.example_fleet`` writes policies/examples/fleet.jsonl; a test holds that file against this.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from orchestrator.documents.base import encode
from orchestrator.documents.facts import Distribution, Facts, Inventory, Kernel, Memory, ProbeInfo
from tests.builders import debian, redhat
from tests.families import suse
from tests.planning.test_plan import armed
from tests.platforms.hosttree import HOSTS, facts_of, load_host

FILE = Path(__file__).parent.parent / "policies/examples/fleet.jsonl"
GIB = 1 << 30


def platform_of(recorded: str) -> Facts:
    """What the probe reads from a recorded host of tests/hosts."""
    with tempfile.TemporaryDirectory() as place:
        facts = facts_of(load_host(HOSTS / f"{recorded}.yaml"), Path(place))
    files = {path: msgspec.structs.replace(f, mtime=10**18) for path, f in facts.files.items()}
    # What the tree's own times, place and disk are belongs to this machine.
    return msgspec.structs.replace(facts, files=files, targets=[], probe=ProbeInfo(version="1", euid=0))


def on(facts: Facts, recorded: str) -> Facts:
    """An installed system on another platform: its signals, firmware and symbols are those of the recorded host."""
    other = platform_of(recorded)
    kernel = msgspec.structs.replace(
        facts.kernel,
        symbols=other.kernel.symbols,
        post_notifiers=other.kernel.post_notifiers,
        efi=other.kernel.efi,
        modules=other.kernel.modules,
    )
    return msgspec.structs.replace(facts, signals=other.signals, kernel=kernel)


def named(facts: Facts, host: str, group: str, *, memory: int = 0) -> Facts:
    """The host under its name, in its group of the inventory."""
    facts = msgspec.structs.replace(facts, host=host, inventory=Inventory(groups=[group]))
    return with_memory(facts, memory * GIB) if memory else facts


def with_memory(facts: Facts, size: int) -> Facts:
    """The same with so much RAM, and a disk for dumps of twice that."""
    memory: Memory = msgspec.structs.replace(facts.memory, total=size, system_ram=size - (1 << 20), cpus=size // GIB)
    targets = [msgspec.structs.replace(t, size=3 * size, free=2 * size) for t in facts.targets]
    return msgspec.structs.replace(facts, memory=memory, targets=targets)


def ubuntu(recorded: str) -> Facts:
    """Ubuntu 24.04 with kdump-tools, on a recorded platform."""
    facts = on(debian(), recorded)
    release = "6.8.0-49-generic"
    there: Kernel = msgspec.structs.replace(
        facts.kernel, release=release, cmdline=facts.kernel.cmdline.replace("6.1.0-40-amd64", release)
    )
    lines = [line.replace("6.1.0-40-amd64", release) for line in facts.boot.grub.lines]
    grub = msgspec.structs.replace(facts.boot.grub, lines=lines)
    return msgspec.structs.replace(
        facts,
        kernel=there,
        distribution=Distribution(id="ubuntu", version_id="24.04", codename="noble"),
        boot=msgspec.structs.replace(facts.boot, grub=grub),
        files={path.replace("6.1.0-40-amd64", release): f for path, f in facts.files.items()},
        packages={
            "kdump-tools": "1:1.10.3ubuntu1",
            "makedumpfile": "1:1.7.5-1build1",
            "kexec-tools": "1:2.0.28-1build1",
        },
    )


def choosing(facts: Facts) -> Facts:
    """With the lines of a menu by which GRUB chooses an entry for one boot, as grub-mkconfig writes them."""
    lines = ["save_env next_entry", *facts.boot.grub.lines, 'source "${config_directory}/custom.cfg"']
    return msgspec.structs.replace(
        facts, boot=msgspec.structs.replace(facts.boot, grub=msgspec.structs.replace(facts.boot.grub, lines=lines))
    )


def fleet() -> list[Facts]:
    """Twelve hosts: most of what a real fleet has, in small."""
    return [
        named(redhat("el9"), "db1", "databases", memory=64),
        named(on(redhat("el9"), "vmware-esxi8-rhel9"), "db2", "databases", memory=64),
        named(choosing(ubuntu("azure-arm64-cobalt")), "edge1", "edge", memory=8),
        named(choosing(ubuntu("azure-gen2-ubuntu24")), "edge2", "edge", memory=8),
        named(choosing(on(debian(), "baremetal-dell")), "lab1", "lab", memory=32),
        named(suse("sles16"), "old1", "legacy", memory=8),
        named(platform_of("xen-pv-domu"), "old2", "legacy"),
        named(platform_of("docker-on-kvm"), "pod1", "containers"),
        named(choosing(debian()), "web1", "web"),
        named(choosing(debian()), "web2", "web"),
        named(choosing(armed()), "web3", "web"),
        named(platform_of("arch-systemd-boot"), "web4", "web"),
    ]


def text() -> bytes:
    """The file: one host a line."""
    return b"".join(encode(facts) + b"\n" for facts in fleet())


if __name__ == "__main__":
    FILE.write_bytes(text())
