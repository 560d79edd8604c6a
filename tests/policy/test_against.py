# SPDX-License-Identifier: Apache-2.0
"""Why not the other strategies."""

from orchestrator.documents.decision import LAYERS
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.against import against
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load, parse
from tests.builders import debian, platform

K = knowledge()
A, B, C = LAYERS


def others(policy=None, **where):
    decider = Decider(policy or load(default_path(), K), K)
    return {a.strategy: a for a in against(decider, debian(), platform(**where))}


def test_what_would_work_says_what_would_differ_and_where_to_write_it():
    found = others()
    assert list(found) == [A, C]
    a = found[A]
    assert a.possible and not a.listed and "does not list it" in a.why and "accepts it" in a.why
    rule = next(r for r in load(default_path(), K).rules if r.id == "kvm-x86")
    assert a.fix.endswith(rule.at("strategy")) and "policies/default.yaml:" in a.fix and a.sources
    assert [(d.what, d.now, d.then) for d in a.differences][:2] == [
        (f"layer {A}", "off", "on"),
        ("boot_ensure", "none", A),
    ]
    assert found[C].listed and "prefers custom_handler" in found[C].why


def test_what_is_impossible_says_why_with_its_source():
    found = others(arch="aarch64", hypervisor="hyperv")
    assert list(found) == [B, C] and not found[B].possible and "no crash handler hook" in found[B].why
    assert found[B].sources and not found[B].differences
    s390 = others(arch="s390x", hypervisor="kvm")[A]
    assert not s390.possible and "never returns" in s390.why


def test_a_refused_host_is_told_what_would_work():
    head = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n"
    policy = parse(head + "  default: {strategy: [crash_kexec_post_notifiers]}\n", "t.yaml", K)
    found = others(policy, arch="s390x", hypervisor="kvm")
    assert found[C].possible and "does not allow it" in found[C].why
