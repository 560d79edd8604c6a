# SPDX-License-Identifier: Apache-2.0
"""Reservations: every table, every delta, every form, and what the kernel would silently turn into nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.crashkernel import parse, reserved_by
from orchestrator.documents.facts import BlockDevice, Target
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.context import Context
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import parse as parse_policy
from tests.builders import debian, platform

K = knowledge()
MIB, GIB = 1 << 20, 1 << 30
HEAD = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n"
RHEL = {"family": "redhat", "distribution": "rhel"}


def host(gib=16, **more):
    facts = debian()
    memory = msgspec.structs.replace(facts.memory, system_ram=gib << 30, page_size=more.pop("page_size", 4096))
    facts = msgspec.structs.replace(facts, memory=memory)
    kernel = msgspec.structs.replace(facts.kernel, **more.pop("kernel", {}))
    signals = msgspec.structs.replace(facts.signals, **more.pop("signals", {}))
    return msgspec.structs.replace(facts, kernel=kernel, signals=signals, **more)


def sized(wish, facts=None, fadump=False, ram=None, **where):
    facts = facts or host()
    basis = K.sizer.basis(wish, Context(facts, platform(**where), K.features), fadump)
    return basis, basis.reservation(ram or facts.memory.system_ram, K.cite)


TABLES = [
    ({}, "384M-:128M"),
    ({"distribution_version": "13"}, "512M-:192M"),
    ({"distribution": "ubuntu", "distribution_version": "22.04"}, "512M-:192M"),
    ({"distribution": "ubuntu", "distribution_version": "24.10"}, "2G-4G:320M,4G-32G:512M,32G-64G:1024M,64G-128G:2048M,128G-:4096M"),
    ({"arch": "aarch64"}, "2G-4G:320M,4G-32G:512M,32G-64G:1024M,64G-128G:2048M,128G-:4096M"),
    ({"arch": "s390x"}, "384M-:128M"),
    ({**RHEL, "distribution_version": "8.10"}, "1G-4G:192M,4G-64G:256M,64G-:512M"),
    ({**RHEL, "distribution_version": "8.10", "arch": "aarch64"}, "2G-:480M"),
    ({**RHEL, "distribution_version": "9.4"}, "1G-4G:192M,4G-64G:256M,64G-:512M"),
    ({**RHEL, "distribution_version": "9.4", "arch": "aarch64"}, "2G-4G:256M,4G-64G:320M,64G-:576M"),
    ({**RHEL, "distribution_version": "10.0"}, "2G-64G:256M,64G-:512M"),
    ({**RHEL, "distribution_version": "10.0", "arch": "ppc64le"}, "2G-4G:384M,4G-16G:512M,16G-64G:1G,64G-128G:2G,128G-:4G"),
    ({"family": "redhat", "distribution": "fedora", "distribution_version": "41"}, "2G-64G:256M,64G-:512M"),
    ({"family": "suse", "distribution": "sles", "distribution_version": "15.6"}, "1G-64G:256M,64G-:384M"),
    ({"family": "arch", "distribution": "arch", "distribution_version": ""}, "1G-:192M"),
    ({"family": "sonic", "distribution": "debian"}, "0M-2G:256M,2G-4G:320M,4G-8G:384M,8G-16G:448M,16G-32G:768M,32G-:1G"),
    ({"family": "unknown", "distribution": "void", "arch": "riscv64"}, "2G-64G:256M,64G-:512M"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "table"), TABLES)
def test_the_distributions_own_table(where, table):
    _, found = sized({}, **where)
    assert found.arguments == [table] and found.origin == "table" and found.sources
    assert found.wanted == parse(table).reserve(16 * GIB)
    if where.get("family") == "suse":
        assert "computes the size on the host" in found.why


ARM = {**RHEL, "distribution_version": "10.0", "arch": "aarch64"}
SMMU = {"devices": ["/sys/class/iommu/smmu*"]}
LUKS = [Target(path="/var/crash", exists=True, free=1, chain=[BlockDevice(name="dm-0", dm_kind="CRYPT")])]
DELTAS = [
    ("page-64k", host(page_size=65536), ARM, "2G-4G:356M,4G-64G:420M,64G-:676M"),
    ("arm-smmu", host(signals=SMMU), ARM, "2G-4G:640M,4G-64G:704M,64G-:960M"),
    ("mlx5", host(kernel={"modules": ["mlx5_core"]}), ARM, "2G-4G:406M,4G-64G:470M,64G-:726M"),
    ("mlx5-64k", host(kernel={"modules": ["mlx5_core"]}, page_size=65536), ARM, "2G-4G:556M,4G-64G:620M,64G-:876M"),
    ("memory-encryption", host(), {**RHEL, "distribution_version": "10.0", "confidential": "sev"}, "2G-64G:320M,64G-:576M"),
    ("memory-encryption", host(signals={"kernel_log": ["Memory Encryption Features active: AMD SME"], "kernel_log_source": "kmsg"}), {}, "384M-:192M"),
    ("luks-target", host(targets=LUKS), {**RHEL, "distribution_version": "10.0"}, "2G-64G:1280M,64G-:1536M"),
]  # fmt: skip


@pytest.mark.parametrize(("delta", "facts", "where", "table"), DELTAS)
def test_what_the_hardware_needs_on_top(delta, facts, where, table):
    data = next(d for d in K.sizer._deltas if d.id == delta)
    _, found = sized({}, facts, **where)
    assert found.arguments == [table] and data.why in found.why
    assert {s.id for s in found.sources} >= set(data.sources)
    assert data.why not in sized({"deltas": False}, facts, **where)[1].why


def test_every_delta_has_a_case_and_nothing_is_added_twice():
    assert {d for d, *_ in DELTAS} == {d.id for d in K.sizer._deltas}
    _, found = sized({}, host(page_size=65536), **{**ARM, "distribution_version": "9.4"})
    assert found.arguments == ["2G-4G:356M,4G-64G:420M,64G-:676M"]  # RHEL 9's own table for 64 KiB pages


def test_named_tables_extra_minimum_and_exact_values():
    assert sized({"table": "lisa"})[1].wanted == 512 * MIB
    assert sized({"table": "kdump-utils", "extra": "64M"})[1].arguments == ["2G-64G:320M,64G-:576M"]
    _, found = sized({"minimum": "300M"})
    assert (found.arguments, found.wanted) == (["300M"], 300 * MIB) and "raised" in found.why
    _, found = sized({"crashkernel": "1G-8G:200M,8G-:400M"})
    assert (found.arguments, found.wanted, found.origin) == (["1G-8G:200M,8G-:400M"], 400 * MIB, "fixed")
    assert sized({}, fadump=True, arch="ppc64le")[1].arguments[0].startswith("4G-16G:768M")
    for name in K.sizer.names:
        assert sized({"table": name})[1].sources


def test_high_low_and_cma():
    new = host(kernel={"release": "6.18.0-1-amd64"})
    basis, found = sized({"placement": "high"}, new)
    assert found.arguments == ["128M,high", "256M,low"] and found.wanted == 384 * MIB and not basis.troubles
    assert reserved_by(found.arguments, 16 * GIB) == found.wanted
    assert sized({"placement": "high", "low": "72M"}, new)[1].arguments == ["128M,high", "72M,low"]
    assert sized({"cma": "512M"}, new)[1].arguments == ["384M-:128M", "512M,cma"]
    assert sized({"crashkernel": ["1G,high", "256M,low"]}, new)[1].wanted == 1280 * MIB


@pytest.mark.parametrize(
    ("wish", "where", "release"),
    [
        ({"placement": "high"}, {"arch": "s390x"}, "6.18.0"),
        ({"crashkernel": "1G,high"}, {"arch": "ppc64le"}, "6.18.0"),
        ({"crashkernel": "1G,high"}, {"arch": "aarch64"}, "5.14.0-427.el9"),
        ({"cma": "512M"}, {}, "6.12.0"),
        ({"crashkernel": ["256M", "512M,cma"]}, {"arch": "aarch64"}, "7.2.0"),
    ],
)
def test_a_form_that_the_kernel_does_not_understand_is_refused(wish, where, release):
    basis, _ = sized(wish, host(kernel={"release": release}), **where)
    assert len(basis.troubles) == 1 and "silently" in basis.troubles[0].why and basis.troubles[0].sources
    text = str(wish).replace("'", '"')
    policy = parse_policy(
        HEAD + f"  settings: {{reservation: {text}}}\n  default: {{strategy: [kdump_reset]}}\n", "t", K
    )
    d = Decider(policy, K).decide(host(kernel={"release": release}), platform(**where))
    assert d.outcome == "refuse" and "reservation" in [r.id for r in d.refusals]


@pytest.mark.parametrize(
    ("wish", "gib"), [({}, 0.25), ({"crashkernel": "64G-:1G"}, 16), ({"crashkernel": "2G-8G:9G"}, 4)]
)
def test_a_reservation_of_nothing_says_so(wish, gib):
    _, found = sized(wish, ram=int(gib * GIB))
    assert found.wanted == 0 and "silently reserve nothing" in found.why


WISHES = st.fixed_dictionaries(
    {},
    optional={
        "table": st.sampled_from(sorted(K.sizer.names)),
        "minimum": st.sampled_from(["64M", "256M", "1G"]),
        "extra": st.sampled_from(["0M", "64M", "1G"]),
        "placement": st.sampled_from(["auto", "high"]),
        "cma": st.sampled_from(["256M"]),
        "deltas": st.booleans(),
    },
)
WHERE = st.fixed_dictionaries(
    {"arch": st.sampled_from(["x86_64", "aarch64", "ppc64le", "s390x", "riscv64"]), "family": st.sampled_from(["debian", "redhat", "suse", "arch"])}
)  # fmt: skip


@given(WISHES, WHERE, st.integers(128, 1 << 22))
def test_what_is_wanted_is_what_the_kernel_would_make_of_the_arguments(wish, where, ram_mib):
    ram = ram_mib * MIB
    basis, found = sized(wish, host(kernel={"release": "7.3.0"}), ram=ram, **where)
    assert found.wanted == reserved_by(found.arguments, ram)
    if "minimum" in wish:
        assert found.wanted >= min(basis.minimum, found.wanted or basis.minimum)
    assert found == basis.reservation(ram, K.cite)  # the same input, the same bytes


def test_the_admission_rule_of_ubuntu():
    from orchestrator.policy.load import load

    policy = load("ubuntu-admission", K)
    room = [Target(path="/var/crash", exists=True, free=200 * GIB)]

    def rule(gib=16, cpus=8, targets=room, efi=True, **where):
        facts = host(gib, targets=targets, kernel={"efi": efi})
        facts = msgspec.structs.replace(facts, memory=msgspec.structs.replace(facts.memory, cpus=cpus))
        return (
            Decider(policy, K)
            .decide(facts, platform(distribution="ubuntu", distribution_version="24.10", **where))
            .rule
        )

    assert rule() == "kvm-x86"
    assert {rule(4), rule(4096), rule(cpus=2), rule(targets=[Target(path="/var/crash", exists=True, free=GIB)])} == {
        "too-small-or-too-large"
    }
    assert rule(arch="ppc64le") == "other-machines"
    assert rule(arch="aarch64") == "default" and rule(arch="aarch64", efi=False) == "other-machines"
