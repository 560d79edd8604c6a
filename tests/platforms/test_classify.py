# SPDX-License-Identifier: Apache-2.0
"""Rules of the classifier: precedence, contradictions, partial evidence, determinism."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.documents.base import encode
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.platforms.classify import Classifier, classify
from orchestrator.platforms.rows import Vocabulary
from orchestrator.platforms.tables import PLATFORMS, SOURCES, compile_tables, load
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

HV, KVM, XEN = (
    {"leaf": leaf, "signature": signature}
    for leaf, signature in (("0x40000000", "Microsoft Hv"), ("0x40000100", "KVMKVMKVM"), ("0x40000100", "XenVMMXenVMM"))
)


def facts(signals: dict[str, Any] | None = None, **more: Any) -> Facts:
    return msgspec.convert({"signals": {"machine": "x86_64", **(signals or {})}, **more}, type=Facts)


def of(signals: dict[str, Any] | None = None, **more: Any) -> Platform:
    return classify(facts(signals, **more))


# Precedence


@pytest.mark.parametrize(("leaves", "hypervisor"), [([HV], "hyperv"), ([HV, KVM], "kvm"), ([HV, XEN], "xen")])
def test_highest_known_base_leaf_decides(leaves, hypervisor):
    for order in (leaves, leaves[::-1]):
        found = of({"cpuid": order, "cpu_flags": ["hypervisor"]})
        assert (found.hypervisor, found.role, found.ambiguous) == (hypervisor, "guest", False)


def test_lower_leaf_is_set_aside_with_a_note():
    found = of({"cpuid": [HV, KVM]})
    aside = [e for e in found.evidence if e.value.startswith("Microsoft Hv")]
    assert len(aside) == 1
    assert "set aside" in aside[0].note
    assert not found.contradictions


def test_unknown_signature_above_a_known_one_does_not_hide_it():
    found = of(
        {
            "cpuid": [
                {"leaf": "0x40000000", "signature": "KVMKVMKVM"},
                {"leaf": "0x40000200", "signature": "WhoKnowsThis"},
            ]
        }
    )
    assert found.hypervisor == "kvm"


def test_two_signatures_on_one_leaf_contradict():
    leaves = [{"leaf": "0x40000000", "signature": s} for s in ("KVMKVMKVM", "VMwareVMware")]
    assert of({"cpuid": leaves}).ambiguous


def test_kernel_verdict_comes_before_cpuid():
    found = of({"kernel_log": ["Hypervisor detected: KVM"], "kernel_log_source": "kmsg", "cpuid": [HV]})
    assert (found.hypervisor, found.ambiguous) == ("kvm", True)
    assert found.contradictions[0].field == "hypervisor"
    assert (found.contradictions[0].chosen, found.contradictions[0].against) == ("kvm", "hyperv")


def test_brand_never_decides_against_a_mechanism():
    found = of({"lscpu_hypervisor": "KVM", "dmi": {"sys_vendor": "VMware, Inc."}})
    assert (found.hypervisor, found.ambiguous) == ("kvm", True)


def test_brand_corroborates_where_it_is_compatible():
    found = of({"cpuid": [{"leaf": "0x40000000", "signature": "KVMKVMKVM"}], "dmi": {"sys_vendor": "innotek GmbH"}})
    assert (found.hypervisor, found.product, found.ambiguous) == ("kvm", "VirtualBox", False)


def test_brand_of_several_hypervisors_alone_is_unknown_not_a_guess():
    found = of({"dmi": {"sys_vendor": "QEMU"}, "cpu_flags": ["hypervisor"]})
    assert (found.hypervisor, found.role) == ("unknown", "guest")


# systemd-detect-virt


@pytest.mark.parametrize(
    ("version", "ambiguous"), [("", False), ("249", False), ("255", False), ("256", True), ("258", True)]
)
def test_microsoft_of_an_old_systemd_is_no_contradiction(version, ambiguous):
    signals = {"kernel_log": ["Hypervisor detected: KVM"], "detect_virt": {"vm": "microsoft", "version": version}}
    assert of(signals).ambiguous is ambiguous


def test_microsoft_of_a_new_systemd_breaks_the_tie():
    signals = {"lscpu_hypervisor": "Microsoft", "cpu_flags": ["hypervisor"]}
    assert of(signals).hypervisor == "unknown"
    assert of({**signals, "detect_virt": {"vm": "microsoft", "version": "257"}}).hypervisor == "hyperv"
    assert of({**signals, "detect_virt": {"vm": "microsoft", "version": "252"}}).hypervisor == "unknown"


# Bare metal


def test_none_needs_positive_evidence():
    assert of().hypervisor == "unknown"
    assert of({"dmi": {"sys_vendor": "Dell Inc.", "product_name": "R660"}}).hypervisor == "unknown"
    assert of({"cpu_flags": None}).hypervisor == "unknown"
    bare = of({"cpu_flags": ["vmx"]})
    assert (bare.hypervisor, bare.role) == ("none", "host")


def test_none_on_arm_needs_firmware_and_the_answer_of_systemd():
    said = {"machine": "aarch64", "detect_virt": {"vm": "none", "version": "252"}}
    assert of(said).hypervisor == "unknown"
    assert of({**said, "device_tree": {"present": True}}).hypervisor == "none"
    assert of({**said, "dmi": {"sys_vendor": "GIGABYTE"}}).hypervisor == "none"
    cloud = of({**said, "dmi": {"sys_vendor": "Hetzner"}})
    assert (cloud.hypervisor, cloud.role, cloud.ambiguous) == ("kvm", "guest", False)


def test_vendor_microsoft_alone_is_not_hyperv():
    assert of({"dmi": {"sys_vendor": "Microsoft Corporation", "product_name": "Surface Pro 9"}}).hypervisor == "unknown"
    assert (
        of({"dmi": {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}}).hypervisor == "hyperv"
    )


@pytest.mark.parametrize("product", ["m5.metal", "i3.metal", "u-6tb1.metal", "c7i.metal-24xl"])
def test_ec2_metal_by_name(product):
    found = of({"machine": "aarch64", "dmi": {"sys_vendor": "Amazon EC2", "product_name": product}})
    assert (found.hypervisor, found.cloud, found.ambiguous) == ("none", "aws", False)


@pytest.mark.parametrize("product", ["m5.large", "x2iedn.32xlarge", "u-12tb1.112xlarge"])
def test_ec2_guest_by_name(product):
    found = of({"machine": "aarch64", "dmi": {"sys_vendor": "Amazon EC2", "product_name": product}})
    assert (found.hypervisor, found.role) == ("kvm", "guest")


# Hyper-V and Xen roles


def test_mshv_alone_leaves_root_or_l1vh_open():
    assert of({"devices": ["/dev/mshv"]}).role == "unknown"
    assert of({"devices": ["/dev/mshv"], "buses": {"vmbus": 3}}).role == "l1vh"
    assert of({"devices": ["/dev/mshv"], "kernel_log": ["Hyper-V: running as root partition"]}).role == "root"


@pytest.mark.parametrize("mark", [{"initdomain": True}, {"features": "00000800"}, {"capabilities": "control_d"}])
def test_dom0_by_each_mark(mark):
    found = of({"xen": {"type": "xen", **mark}, "cpu_flags": [], "dmi": {"sys_vendor": "QEMU"}})
    assert (found.hypervisor, found.role, found.ambiguous) == ("xen", "dom0", False)


def test_generation_only_of_guests():
    log = ["Hypervisor detected: Microsoft Hyper-V"]
    assert of({"kernel_log": log}, kernel={"efi": True}).variant == "gen2"
    assert of({"kernel_log": log}, kernel={"efi": False}).variant == "gen1"
    assert of({"kernel_log": [*log, "Hyper-V: running as root partition"]}, kernel={"efi": True}).variant == ""


# Confidential computing


@pytest.mark.parametrize(
    ("group_a", "group_b", "kind", "paravisor"),
    [
        ("0x1", "0xba2", "sev-snp", True),
        ("0x0", "0x3", "tdx", False),
        ("0x1", "0xbe3", "tdx", True),
        ("0x0", "0x0", "none", False),
    ],
)
def test_hyperv_isolation_line(group_a, group_b, kind, paravisor):
    log = ["Hypervisor detected: Microsoft Hyper-V", f"Hyper-V: Isolation Config: Group A {group_a}, Group B {group_b}"]
    found = of({"kernel_log": log, "kernel_log_source": "kmsg"})
    assert (found.confidential, found.paravisor) == (kind, paravisor)


def test_confidential_is_unknown_where_nothing_could_show_it():
    guest = {"cpuid": [{"leaf": "0x40000000", "signature": "KVMKVMKVM"}]}
    assert of(guest).confidential == "unknown"
    assert of({**guest, "kernel_log": ["Hypervisor detected: KVM"], "kernel_log_source": "kmsg"}).confidential == "none"
    assert of({**guest, "detect_virt": {"cvm": "none", "version": "257"}}).confidential == "none"
    assert any("confidential" in text for text in of(guest).unseen)


def test_a_log_without_its_beginning_shows_nothing_by_silence():
    signals = {"cpu_flags": ["hypervisor"], "kernel_log": ["crashkernel reserved: 0x1"], "kernel_log_source": "kmsg"}
    assert of(signals).confidential == "none"
    cut = {"unseen": [{"what": "beginning of the kernel log", "why": "overwritten by later messages"}]}
    found = of(signals, probe=cut)
    assert found.confidential == "unknown"
    assert any("confidential" in text for text in found.unseen)


def test_sme_on_a_host_is_no_confidential_guest():
    log = ["Memory Encryption Features active: AMD SME"]
    assert of({"cpu_flags": ["sme"], "kernel_log": log, "kernel_log_source": "kmsg"}).confidential == "none"


# Whose kernel


def test_container_names_the_hypervisor_below():
    found = of(
        {"container": {"pid_ns": "pid:[4026532541]"}, "cpuid": [{"leaf": "0x40000000", "signature": "KVMKVMKVM"}]}
    )
    assert (found.role, found.hypervisor, found.ambiguous) == ("container", "kvm", False)


def test_marker_in_the_initial_namespace_is_a_contradiction():
    found = of({"container": {"pid_ns": "pid:[4026531836]", "markers": ["/.dockerenv"]}, "cpu_flags": ["hypervisor"]})
    assert (found.role, found.ambiguous) == ("guest", True)


# Architecture


@pytest.mark.parametrize(
    ("machine", "kernel", "arch", "ambiguous"),
    [
        ("i686", "x86_64", "x86_64", False),
        ("aarch64", "x86_64", "x86_64", True),
        ("mips64", "", "unknown", False),
        (None, "s390x", "s390x", False),
    ],
)
def test_personality_does_not_change_the_architecture(machine, kernel, arch, ambiguous):
    found = of({"machine": machine}, kernel={"sysctls": {"kernel/arch": kernel}})
    assert (found.arch, found.ambiguous) == (arch, ambiguous)


# Families


@pytest.mark.parametrize(
    ("distribution", "family"),
    [
        ({"id": "debian"}, "debian"),
        ({"id": "neon", "id_like": ["ubuntu", "debian"]}, "debian"),
        ({"id": "rocky", "id_like": ["rhel", "centos", "fedora"]}, "redhat"),
        ({"id": "fedora", "variant_id": "coreos", "ostree": True}, "ostree"),
        ({"id": "rhel", "ostree": True}, "ostree"),
        ({"id": "opensuse-slowroll", "id_like": ["opensuse", "suse"]}, "suse"),
        ({"id": "mariner"}, "azurelinux"),
        ({"id": "ubuntu-core", "id_like": ["debian"]}, "unknown"),
        ({"id": "gentoo"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_family(distribution, family):
    assert of(distribution=distribution).family == family


@pytest.mark.parametrize("extra", ["vfat", "false"])
def test_grub_entries_without_blscfg(extra):
    boot = {"markers": ["/boot/grub2", "/boot/loader/entries"], "tools": ["grub2-mkconfig"]}
    file = {"/etc/default/grub": {"text": f"GRUB_ENABLE_BLSCFG={extra}\n"}}
    assert of(boot=boot, files=file).boot_stack == ("grub" if extra == "false" else "grub-bls")


# Tables


def _data() -> tuple[Any, Any]:
    return load_yaml(read_text(PLATFORMS), PLATFORMS).data, load_yaml(read_text(SOURCES), SOURCES).data["sources"]


def test_every_source_is_used():
    data, sources = _data()
    assert {row["ref"] for row in data["rows"]} | {"kernel-arch"} == set(sources)


def test_a_platform_is_one_row():
    data, sources = _data()
    row = {
        "source": "dmi",
        "field": "dmi.sys_vendor",
        "equals": "Acme",
        "rank": 45,
        "brand": True,
        "ref": "dmi-vendors",
    }
    data["rows"].append({**row, "says": {"hypervisor": "kvm", "cloud": "acme", "product": "Acme {product_name}"}})
    found = Classifier(compile_tables(data, sources)).classify(
        facts({"dmi": {"sys_vendor": "Acme", "product_name": "One"}})
    )
    assert (found.hypervisor, found.cloud, found.product) == ("kvm", "acme", "Acme One")


@pytest.mark.parametrize(
    "row",
    [
        {"field": "dmi.sys_vendor", "says": {"hypervisor": "kvm"}},  # no test
        {"field": "dmi.sys_vendor", "equals": "x", "prefix": "y", "says": {"hypervisor": "kvm"}},
        {"field": "nowhere", "equals": "x", "says": {"hypervisor": "kvm"}},
        {"field": "dmi.sys_vendor", "equals": "x", "says": {"hypervisor": "kvmm"}},
        {"field": "dmi.sys_vendor", "equals": "x", "says": {"hypervisor": "kvm"}, "ref": "nobody"},
        {"field": "dmi.sys_vendor", "equals": "x", "says": {"hypervisor": "kvm"}, "surprise": 1},
        {"field": "dmi.sys_vendor", "equals": "x", "says": {"role": "guest"}, "for": {"hypervisor": "kvm"}},
    ],
)
def test_a_bad_row_is_refused(row):
    data, sources = _data()
    data["rows"].append({"source": "dmi", "rank": 1, "ref": "dmi-vendors", **row})
    with pytest.raises((KeyError, ValueError)):
        compile_tables(data, sources)


def test_vocabulary_spells_sets():
    words = Vocabulary(["none", "kvm", "tcg", "xen"])
    assert words.spell(words.mask(["kvm", "tcg"])) == "kvm|tcg"
    assert words.spell(words.mask(["!none"])) == "!none"
    assert words.spell(words.all) == "unknown"


# Properties

_DATA, _ = _data()
_TEXTS = sorted(
    {
        str(text)
        for row in _DATA["rows"]
        for kind in ("equals", "prefix", "contains", "suffix")
        if kind in row
        for text in (row[kind] if isinstance(row[kind], list) else [row[kind]])
    }
    | {
        "Hyper-V: Isolation Config: Group A 0x1, Group B 0xba2",
        "Memory Encryption Features active: AMD SEV",
        "m5.metal",
        "none",
        "x86_64",
    }
)
TEXT = st.one_of(st.sampled_from(_TEXTS), st.text(max_size=40))
MANY = st.lists(TEXT, max_size=6)


def _some(names: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names.split(), values))


SIGNALS = st.fixed_dictionaries(
    {
        "machine": st.one_of(
            st.none(),
            st.sampled_from(["x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "i686"]),
            st.text(max_size=8),
        )
    },
    optional={
        "cpuid": st.lists(
            st.fixed_dictionaries(
                {
                    "leaf": st.one_of(
                        st.sampled_from(["0x40000000", "0x40000100", "0x21", "40000200", "-1", "zz"]),
                        st.text(max_size=5),
                    ),
                    "signature": TEXT,
                }
            ),
            max_size=5,
        ),
        "cpu_flags": st.one_of(st.none(), st.lists(st.sampled_from(["hypervisor", "tdx_guest", "svm"]))),
        "smbios_vm": st.sampled_from([None, True, False]),
        "dmi": _some("sys_vendor product_name product_version bios_vendor bios_version chassis_asset_tag odd", TEXT),
        "acpi": st.lists(
            _some("oem_id oem_table_id hypervisor_id", TEXT).map(lambda d: {"table": "FACP", **d}), max_size=3
        ),
        "device_tree": st.fixed_dictionaries(
            {},
            optional={
                "present": st.booleans(),
                "model": TEXT,
                "compatible": MANY,
                "hypervisor_compatible": MANY,
                "nodes": MANY,
            },
        ),
        "xen": st.fixed_dictionaries(
            {},
            optional={
                "initdomain": st.sampled_from([None, True, False]),
                "features": TEXT,
                "type": TEXT,
                "guest_type": TEXT,
            },
        ),
        "buses": st.dictionaries(st.sampled_from(["vmbus", "virtio", "xen"]), st.integers(-1, 9)),
        "detect_virt": _some("vm container cvm version", TEXT),
        "container": st.fixed_dictionaries(
            {}, optional={"pid_ns": TEXT, "user_ns": TEXT, "markers": MANY, "manager": TEXT, "osrelease": TEXT}
        ),
        **dict.fromkeys(["kernel_log", "sysinfo", "devices", "clocksources"], MANY),
        **dict.fromkeys(["cpu_vendor", "cpu_platform", "clocksource", "lscpu_hypervisor", "kernel_log_source"], TEXT),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"signals": SIGNALS},
    optional={
        "kernel": st.fixed_dictionaries(
            {},
            optional={
                "cmdline": TEXT,
                "efi": st.sampled_from([None, True, False]),
                "sysctls": st.dictionaries(st.sampled_from(["kernel/arch"]), TEXT),
                "module_params": st.dictionaries(st.sampled_from(["kvm_amd.sev_snp", "kvm_intel.tdx"]), TEXT),
            },
        ),
        "distribution": st.fixed_dictionaries({}, optional={"id": TEXT, "id_like": MANY, "ostree": st.booleans()}),
        "boot": st.fixed_dictionaries({}, optional={"markers": MANY, "tools": MANY}),
    },
)


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(k, v if k == "id_like" else _shuffled(v, rng)) for k, v in value.items()]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        out = [_shuffled(v, rng) for v in value]
        rng.shuffle(out)
        return out
    return value


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, st.integers())
def test_never_raises_and_order_does_not_matter(document, seed):
    first = classify(msgspec.convert(document, type=Facts))
    assert first.ambiguous == bool(first.contradictions)
    assert encode(first) == encode(classify(msgspec.convert(document, type=Facts)))
    fresh = Classifier(load())  # nothing remembered from other hosts
    assert encode(first) == encode(
        fresh.classify(msgspec.convert(_shuffled(document, random.Random(seed)), type=Facts))
    )
    assert msgspec.json.decode(encode(first), type=Platform) == first


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(st.text(max_size=600), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.sampled_from(["kernel_log", "sysinfo", "devices"]),
)
def test_any_text_is_survived(value, field):
    texts = [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, str)]
    for evidence in of({field: texts}).evidence:
        assert evidence.value.isprintable()
