# SPDX-License-Identifier: Apache-2.0
"""Platform: what a host is, concluded from its facts, with the evidence for and against."""

from __future__ import annotations

from orchestrator.documents.base import Document


class Evidence(Document, frozen=True, kw_only=True):
    """One signal and what it says. ``value`` is the raw text, cut to 200 characters."""

    source: str  # kernel-log | cpuid | vmbus | xen | device-tree | sysinfo | dmi | acpi | detect-virt | …
    value: str
    says: str  # "hypervisor=kvm", "cloud=aws", "role=container", …
    rank: int  # higher decides; equal ranks that disagree are a contradiction
    brand: bool = False  # a brand name: corroborates, never decides alone against a mechanism
    note: str = ""  # why it was set aside, or a known error of that source
    ref: str = ""  # id in the knowledge data's list of sources


class Contradiction(Document, frozen=True, kw_only=True):
    """Two pieces of evidence that cannot both be true."""

    field: str
    chosen: str
    against: str
    why: str


class Platform(Document, frozen=True, kw_only=True):
    """The conclusion. Unknown is ``unknown``, never a guess."""

    arch: str = "unknown"
    hypervisor: str = "unknown"  # none, kvm, tcg, hyperv, xen, vmware, powervm, zvm, lpar, bhyve, acrn, jailhouse, …
    role: str = "unknown"  # host (bare metal), guest, root, l1vh, dom0, container, wsl, uml, unknown
    variant: str = ""  # pv, hvm, pvh (Xen); gen1, gen2 (Hyper-V); powernv, pseries (POWER)
    product: str = ""  # e.g. "Firecracker", "Amazon EC2 m7g.large", "Surface Laptop"
    cloud: str = ""  # aws, azure, gcp, alibaba, digitalocean, hetzner, openstack, oci, …
    confidential: str = "none"  # none, sev, sev-es, sev-snp, tdx, cca, unknown
    paravisor: bool = False
    confidential_host: str = ""  # sev-snp, tdx: this kernel hosts confidential guests
    ambiguous: bool = False
    evidence: list[Evidence] = []
    contradictions: list[Contradiction] = []
    unseen: list[str] = []  # what could not be seen and matters for this conclusion
    family: str = "unknown"  # debian, redhat, suse, arch, azurelinux, ostree, sonic, unknown
    distribution: str = ""  # os-release ID
    distribution_version: str = ""  # os-release VERSION_ID
    boot_stack: str = "unknown"  # grub, grub-bls, systemd-boot, zipl, ostree, extlinux, unknown
