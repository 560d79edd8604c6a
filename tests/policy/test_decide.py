# SPDX-License-Identifier: Apache-2.0
"""Policy and knowledge → decision: the issue's own examples, refusals with their sources, the whole space of platforms."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.documents.base import encode
from orchestrator.documents.decision import LAYERS
from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.decide import Decider
from orchestrator.policy.lint import cells
from orchestrator.policy.load import default_path, load, parse
from tests.builders import debian, kernel, platform

K = knowledge()
DEFAULT = load(default_path(), K)

HEAD = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n"


def policy(rest: str):
    return parse(HEAD + rest, "t.yaml", K)


def decide(facts, where, rules=None):
    return Decider(rules or DEFAULT, K).decide(facts, where)


def explained(facts, where, rules=None):
    return Decider(rules or DEFAULT, K).explained(facts, where)


def states(decision):
    return {layer.name: layer.state for layer in decision.layers}


def test_arm64_hyperv_relies_on_the_notifiers_because_no_handler_exists_there():
    facts = kernel(debian(), symbols=["hv_panic_vmbus_unload"], post_notifiers="Y")
    d = decide(facts, platform(arch="aarch64", hypervisor="hyperv", cloud="azure"))
    assert (d.outcome, d.strategy, d.knowledge) == ("act", "crash_kexec_post_notifiers", ["A03"])
    assert states(d) == {"crash_kexec_post_notifiers": "on", "custom_handler": "impossible", "kdump_reset": "on"}
    assert d.layer("crash_kexec_post_notifiers").forced and d.settings.boot_ensure == ["crash_kexec_post_notifiers"]
    assert "module_blacklist=hyperv_fb,hyperv_drm" in d.settings.capture_ensure
    assert any("vmbus" in s.title for s in d.layer("crash_kexec_post_notifiers").sources)


def test_x86_kvm_relies_on_the_handler_and_resets():
    d = decide(debian(), platform())
    assert (d.strategy, d.knowledge) == ("custom_handler", ["X04"])
    assert states(d) == {"crash_kexec_post_notifiers": "off", "custom_handler": "verified", "kdump_reset": "on"}
    assert {"nr_cpus=1", "reset_devices"} <= set(d.settings.capture_ensure)


def test_x86_kvm_without_the_handler_falls_back_to_the_reset():
    d = decide(kernel(debian(), symbols=["machine_ops"]), platform())
    assert (d.strategy, states(d)["custom_handler"]) == ("kdump_reset", "off")


def test_a_pointer_to_another_handler_outweighs_the_symbol():
    d = decide(kernel(debian(), crash_shutdown="native_machine_crash_shutdown"), platform())
    assert d.strategy == "kdump_reset" and "native_machine_crash_shutdown" in d.layer("custom_handler").why


def test_unreadable_symbols_are_expected_not_verified():
    d = decide(kernel(debian(), symbols=None), platform())
    assert (d.strategy, states(d)["custom_handler"]) == ("custom_handler", "expected")


def test_arm64_kvm_relies_on_the_reset():
    d = decide(debian(), platform(arch="aarch64"))
    assert (d.strategy, states(d)["custom_handler"]) == ("kdump_reset", "impossible")


def test_graviton_does_not_poll_interrupts():
    d = decide(debian(), platform(arch="aarch64", cloud="aws"))
    assert "irqpoll" not in d.settings.capture_ensure and "irqpoll" in d.settings.capture_remove


@pytest.mark.parametrize("hypervisor", ["lpar", "zvm", "kvm"])
def test_s390x_refuses_notifiers_and_says_why(hypervisor):
    rules = policy("  default: {strategy: [crash_kexec_post_notifiers]}\n")
    d = decide(debian(), platform(arch="s390x", hypervisor=hypervisor), rules)
    assert (d.outcome, d.strategy) == ("refuse", "")
    refusal = d.refusals[0]
    assert "never returns" in refusal.why and refusal.id == "S01" and "kdump_reset" in refusal.fix
    assert [s.id for s in refusal.sources] == ["s390-panic"]
    assert decide(debian(), platform(arch="s390x", hypervisor=hypervisor)).strategy == "kdump_reset"


def test_pseries_refuses_notifiers_by_measurement():
    rules = policy("  default: {strategy: [crash_kexec_post_notifiers]}\n")
    d = decide(debian(), platform(arch="ppc64le", hypervisor="kvm"), rules)
    assert d.outcome == "refuse" and "ibm,os-term" in d.refusals[0].why


def test_old_power_kernels_get_maxcpus():
    d = decide(debian(), platform(arch="ppc64le", hypervisor="kvm"))
    assert "maxcpus=1" in d.settings.capture_ensure and "nr_cpus=1" not in d.settings.capture_ensure
    assert "nr_cpus" in d.settings.capture_remove  # never both
    new = kernel(debian(), release="6.12.1")
    assert "nr_cpus=1" in decide(new, platform(arch="ppc64le", hypervisor="kvm")).settings.capture_ensure


def test_hyperv_with_drm_panic_moves_from_the_handler_to_the_notifiers():
    where = platform(hypervisor="hyperv")
    symbols = ["hv_guest_crash_shutdown", "hv_panic_vmbus_unload", "vmbus_set_skip_unload"]
    plain = kernel(debian(), release="7.2.0", symbols=symbols, post_notifiers="Y")
    assert decide(plain, where).strategy == "custom_handler"
    config = {**plain.kernel.config, "DRM_PANIC": "y"}
    bound = kernel(plain, modules=["hyperv_drm", "hv_vmbus"], config=config)
    d = decide(bound, where)
    assert (d.strategy, d.knowledge) == ("crash_kexec_post_notifiers", ["X07"])
    rules = policy(
        "  default: {strategy: [crash_kexec_post_notifiers, custom_handler], settings: {post_notifiers: 'off'}}\n"
    )
    assert decide(bound, where, rules).outcome == "refuse"


def test_hyperv_keeps_what_the_kernel_forced():
    facts = kernel(debian(), symbols=["hv_machine_crash_shutdown"], post_notifiers="Y")
    d = decide(facts, platform(hypervisor="hyperv"))
    assert d.settings.post_notifiers is None and d.settings.boot_ensure == [] and d.settings.boot_remove == []


@pytest.mark.parametrize(
    ("where", "row"),
    [
        ({"role": "container"}, "G1"),
        ({"hypervisor": "xen", "variant": "pv"}, "X13"),
        ({"hypervisor": "xen", "variant": "pv", "role": "dom0"}, "X14"),
        ({"arch": "aarch64", "hypervisor": "xen"}, "A05"),
        ({"arch": "aarch64", "confidential": "cca"}, "A06"),
        ({"confidential": "sev-snp"}, "X05b"),  # 6.1 lacks snp_kexec_finish
        ({"hypervisor": "unknown", "role": "unknown"}, "G0"),
        ({"ambiguous": True}, "contradictory"),
    ],
)
def test_what_cannot_work_is_refused(where, row):
    d = decide(debian(), platform(**where))
    assert d.outcome == "refuse" and row in [r.id for r in d.refusals]
    assert d.settings.capture_ensure == [] and all(r.why and r.fix for r in d.refusals)


def test_unproven_needs_consent():
    rules = policy("  default: {strategy: [kdump_reset], settings: {allow_unproven: true}}\n")
    d = decide(debian(), platform(arch="aarch64", hypervisor="xen"), rules)
    assert (d.outcome, d.strategy) == ("act", "kdump_reset")


def test_confidential_guests_keep_their_bounce_buffers():
    facts = kernel(debian(), release="6.12.1", symbols=["tdx_kexec_finish", "kvm_crash_shutdown"])
    rules = policy("  default: {strategy: [custom_handler], settings: {capture: {ensure: [swiotlb=noforce]}}}\n")
    d = decide(facts, platform(confidential="tdx"), rules)
    assert "swiotlb=noforce" not in d.settings.capture_ensure and "swiotlb=noforce" in d.settings.capture_remove


def test_a_kernel_without_kexec_is_refused():
    facts = debian(kexec=msgspec.structs.replace(debian().kexec, supported=False))
    assert [r.id for r in decide(facts, platform()).refusals] == ["G7"]


def test_policy_cannot_take_the_reset_away():
    rules = policy(
        "  default: {strategy: [kdump_reset], settings: {capture: {ensure: [panic=30], remove: [nr_cpus, reset_devices, mce]}}}\n"
    )
    d = decide(debian(), platform(), rules)
    assert {"nr_cpus=1", "reset_devices", "panic=30"} <= set(d.settings.capture_ensure)
    assert "mce=off" not in d.settings.capture_ensure and "panic=10" not in d.settings.capture_ensure


def test_every_cell_of_the_space_gets_a_decision_with_three_layers():
    decider = Decider(DEFAULT, K)
    outcomes = set()
    for cell in cells():
        v = cell.values
        where = platform(**{k: v[k] or "" if k in ("variant",) else v[k] for k in v})
        d = decider.decide(debian(), where)
        assert [layer.name for layer in d.layers] == list(LAYERS)
        assert all(layer.why for layer in d.layers)
        assert (d.outcome == "refuse") == bool(d.refusals) == (d.strategy == "")
        if d.strategy:
            assert states(d)[d.strategy] in ("on", "verified", "expected")
            assert v["arch"] == "x86_64" or d.strategy != "custom_handler"
            keys = [a.split("=")[0] for a in d.settings.capture_ensure]
            assert len(keys) == len(set(keys)) and not {"nr_cpus", "maxcpus"} <= set(keys)
        if v["arch"] == "s390x":
            assert states(d)["crash_kexec_post_notifiers"] in ("off", "impossible")
        outcomes.add(d.outcome)
    assert outcomes == {"act", "refuse"}


def test_sharing_decisions_changes_nothing():
    decider = Decider(DEFAULT, K)
    for facts, where in [(debian(), platform()), (debian("b"), platform(cloud="aws")), (debian("c"), platform())]:
        fresh = msgspec.structs.replace(Decider(DEFAULT, K).explained(facts, where), trace=[])
        assert encode(decider.decide(facts, where)) == encode(fresh)


def test_unknown_is_neither_true_nor_false():
    rules = policy(
        "  rules:\n"
        "    - {id: big, match: {memory: {min: 64G}}, strategy: [kdump_reset]}\n"
        "    - {id: not-big, match: {not: {memory: {min: 64G}}}, strategy: [kdump_reset]}\n"
        "  default: {strategy: [kdump_reset]}\n"
    )
    unknown = debian(memory=msgspec.structs.replace(debian().memory, total=None, system_ram=None))
    d = explained(unknown, platform(), rules)
    assert d.rule == "default" and [t.matched for t in d.trace[:3]] == [None, None, True]
    assert decide(debian(), platform(), rules).rule == "not-big"


def test_trace_shows_every_clause_with_its_value():
    d = explained(debian(), platform())
    rule = next(t for t in d.trace if t.id == "kvm-x86")
    assert [(c.field, c.wanted, c.actual, c.result) for c in rule.clauses] == [
        ("arch", "x86_64", "x86_64", True),
        ("hypervisor", "kvm", "kvm", True),
    ]
    assert d.trace[-1].id == "X04" and DEFAULT.file in rule.where


def test_reservation_by_the_distributions_table():
    assert decide(debian(), platform()).settings.reservation.arguments == ["384M-:128M"]
    assert decide(debian(), platform(distribution_version="13")).settings.reservation.arguments == ["512M-:192M"]
    ubuntu = decide(debian(), platform(distribution="ubuntu", distribution_version="24.10")).settings.reservation
    assert ubuntu.arguments[0].startswith("2G-4G:320M") and ubuntu.wanted == 512 << 20
    minimum = policy("  default: {strategy: [kdump_reset], settings: {reservation: {minimum: 256M}}}\n")
    assert decide(debian(), platform(), minimum).settings.reservation.wanted == 256 << 20


def test_an_impossible_order_is_an_error_of_the_policy():
    from orchestrator.policy.lint import require_sound

    rules = policy(
        "  rules:\n    - {id: z, match: {arch: s390x}, strategy: [crash_kexec_post_notifiers]}\n  default: {strategy: [kdump_reset]}\n"
    )
    with pytest.raises(PolicyError) as e:
        require_sound(rules, K)
    p = e.value.problems[0]
    assert p.where == "t.yaml:6:47" and "never returns" in p.why and "ipl.c" in p.why and "kdump_reset" in p.fix
