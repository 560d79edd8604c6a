# SPDX-License-Identifier: Apache-2.0
"""Findings of lint over the whole space: ranges, patterns, sets, unknowns, gaps, crossings, and what it cannot decide."""

from __future__ import annotations

import pytest

from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy import boxes
from orchestrator.policy.lint import MAX_NOTES, lint, require_sound
from orchestrator.policy.load import default_path, load, parse

K = knowledge()
HEAD = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n  rules:\n"


def policy(*matches, default="{refuse: no}", outcome="refuse: no"):
    lines = [m if m.startswith("{id") else "{id: r%d, match: %s, %s}" % (n, m, outcome) for n, m in enumerate(matches)]
    return parse(HEAD + "".join(f"    - {line}\n" for line in lines) + f"  default: {default}\n", "t.yaml", K)


def found(p, *ids):
    return [x for x in lint(p, K) if not ids or x.id in ids]


def dead(*matches):
    """Numbers of the rules that never decide."""
    return [int(x.what.split("'")[1][1:]) for x in found(policy(*matches), "P020", "P021")]


def test_the_shipped_policy_has_no_finding():
    assert lint(load(default_path(), K), K) == []


@pytest.mark.parametrize(
    ("matches", "wanted"),
    [
        # Ranges that cover everything that can be told, and what they leave.
        (["{memory: {below: 8G}}", "{memory: {min: 8G, below: 64G}}", "{memory: {min: 32G}}", "{memory: {min: 1G}}"], [3]),
        (["{memory: {below: 8G}}", "{memory: {min: 8G}}", "{arch: x86_64}"], []),  # memory that cannot be told is left
        (["{memory: {below: 8G}}", "{memory: {min: 9G}}", "{memory: {min: 8G}}"], []),
        (["{memory: {below: 1024M}}", "{memory: {min: 1G}}", "{memory: {min: '0'}}"], [2]),
        (["{kernel: {min: '6.1'}}", "{kernel: {min: '6.1.0'}}"], [1]),
        (["{kernel: {below: '6.10'}}", "{kernel: {min: '6.9'}}", "{kernel: {min: '0'}}"], [2]),
        (["{kernel: {below: '6.9'}}", "{kernel: {min: '6.10'}}", "{kernel: {min: '0'}}"], []),
        (["{distribution_version: {min: '12'}}", "{distribution_version: {min: '12.1'}}"], [1]),
        (["{distribution_version: {min: '12'}}", "{distribution_version: {min: '12~rc1'}}"], []),
        # Names.
        (["{host: 'web-*'}", "{host: 'web-1*'}"], [1]),
        (["{host: 'web-1*'}", "{host: 'web-*'}"], []),
        (["{host: ['web-[a-m]*', 'web-[n-z]*']}", "{host: 'web-[a-z]1'}"], [1]),
        (["{host: '*-a'}", "{host: '*-b'}", "{host: 'web-[ab]'}"], [2]),
        (["{host: '*-a'}", "{host: '*-b'}", "{host: 'web-[abc]'}"], []),
        (["{not: {host: 'web-*'}}", "{host: 'db-*'}"], [1]),
        (["{host: '*'}", "{arch: x86_64}"], [1]),
        (["{host: 'a*', not: {host: '*'}}"], [0]),
        (["{host: 'a*', all: [{host: 'b*'}]}"], [0]),
        # Not, any, all.
        (["{arch: x86_64}", "{not: {arch: x86_64}}", "{hypervisor: kvm}"], []),  # an arch that cannot be told is left
        (["{ambiguous: true}", "{not: {ambiguous: true}}", "{hypervisor: kvm}"], [2]),
        (["{any: [{hypervisor: kvm}, {not: {hypervisor: kvm}}]}", "{role: guest}"], [1]),
        (["{not: {any: [{tags: a}, {tags: b}]}}", "{tags: {none: [a, b]}}"], [1]),
        (["{not: {not: {groups: a}}}", "{groups: [a]}"], [1]),
        (["{any: [{groups: a}, {groups: b}]}", "{groups: [a, b]}"], [1]),
        # What cannot be told is neither.
        (["{features: [pvpanic]}", "{features: {none: [pvpanic]}}", "{hypervisor: kvm}"], []),
        (["{features: [pvpanic]}", "{not: {features: [pvpanic]}}", "{hypervisor: kvm}"], []),
        (["{drivers: [nvme]}", "{drivers: {none: [nvme]}}", "{drivers: {all: []}}", "{hypervisor: kvm}"], [2]),
        (["{firmware: efi}", "{firmware: bios}", "{hypervisor: kvm}"], []),
        (["{features: [fadump_enabled]}", "{features: {none: [fadump_enabled]}}", "{hypervisor: kvm}"], [2]),  # always told
        # Sets.
        (["{groups: [a, b]}", "{groups: {all: [a, b]}}"], [1]),
        (["{groups: {all: [a, b]}}", "{groups: [a, b]}"], []),
        (["{groups: {any: [a], none: [b]}}", "{groups: {all: [a, b]}}", "{groups: [a]}"], [2]),
        (["{groups: {none: [a]}}", "{groups: {none: [a, b]}}"], [1]),
        (["{groups: {all: [a], none: [a]}}"], [0]),
        # What belongs together in reality.
        (["{arch: ppc64le, hypervisor: zvm}"], [0]),
        (["{role: root, hypervisor: kvm}"], [0]),
        (["{arch: aarch64, confidential: tdx}"], [0]),
        (["{variant: gen3}"], [0]),
        (["{distribution: debian, family: redhat}"], [0]),
        (["{kernel: {min: '5.10'}, features: {none: [pvpanic_crash_loaded]}}"], [0]),  # the feature is that version
        (["{kernel: {below: '6.9'}, features: [ppc_nr_cpus]}"], [0]),
        (["{drivers: [hyperv_drm]}", "{features: [hyperv_drm]}"], [1]),  # the feature is that driver
        # Words that a policy cannot name are hosts too.
        (["{arch: [x86_64, aarch64, ppc64le, s390x, riscv64, loongarch64]}", "{not: {arch: x86_64}}"], []),
    ],
)  # fmt: skip
def test_rules_that_never_decide(matches, wanted):
    assert dead(*matches) == wanted


def test_a_rule_that_reality_rules_out_says_why():
    (p,) = found(policy("{arch: ppc64le, hypervisor: zvm}"), "P020")
    assert p.where == "t.yaml:6:23" and p.why == "no host is like that: z/VM and LPARs exist on s390x only"
    (p,) = found(policy("{groups: {all: [a], none: [a]}}"), "P020")
    assert "contradict each other" in p.why


def test_only_the_rules_that_are_needed_are_named():
    p = policy("{groups: z}", "{host: 'web-*'}", "{host: 'db-*'}", "{host: 'web-1'}")
    (problem,) = found(p, "P021")
    assert "'r1'" in problem.why and "'r0'" not in problem.why and "'r2'" not in problem.why
    p = policy("{tags: a}", "{tags: c}", "{tags: {none: [a]}}", "{tags: b}")
    (problem,) = found(p, "P021")
    assert "'r0'" in problem.why and "'r2'" in problem.why and "'r1'" not in problem.why


def test_the_default_that_never_applies():
    (p,) = found(policy("{}"), "P022")
    assert p.severity == "warning" and "'r0'" in p.why
    assert not found(policy("{arch: x86_64}", "{not: {arch: x86_64}}"), "P022")


# ---------------------------------------------------------------------- gaps


def test_a_gap_names_the_platform_an_example_and_the_way_out():
    p = policy("{id: arm, match: {arch: aarch64}, strategy: [kdump_reset]}")
    (gap,) = found(p, "P040")
    assert (gap.severity, gap.where) == ("warning", "t.yaml:6:51")
    assert "A03" in gap.what and "hypervisor hyperv" in gap.why and "crash_kexec_post_notifiers for A03" in gap.fix
    require_sound(p, K)
    closed = "{id: hv, match: {arch: aarch64, hypervisor: hyperv}, strategy: [crash_kexec_post_notifiers]}"
    assert not found(policy(closed, "{id: arm, match: {arch: aarch64}, strategy: [kdump_reset]}"), "P040")


def test_no_gap_where_nothing_works_or_only_the_unproven_does():
    xen = "{id: x, match: {arch: aarch64, hypervisor: [kvm, xen], role: guest}, strategy: [kdump_reset]}"
    assert not found(policy(xen), "P040")
    unproven = xen.replace("[kdump_reset]", "[crash_kexec_post_notifiers], settings: {allow_unproven: true}")
    assert not found(policy(unproven), "P040")


def test_a_row_that_earlier_rows_take_is_no_row_of_the_rule():
    """TDX under KVM is row X05c, never the plain KVM row: what only the plain row offers is never possible."""
    p = policy("{id: t, match: {arch: x86_64, hypervisor: kvm, confidential: tdx}, strategy: [kdump_reset]}")
    (problem,) = found(p, "P030")
    assert "custom_handler" in problem.fix
    with pytest.raises(PolicyError):
        require_sound(p, K)


# ---------------------------------------------------------------------- crossings


def test_crossing_rules_are_noted_with_both_places_and_an_example():
    a = "{id: a, match: {groups: web}, strategy: [kdump_reset]}"
    b = "{id: b, match: {memory: {min: 64G}}, refuse: too large}"
    (note,) = found(policy(a, b), "P041")
    assert (note.severity, note.where) == ("note", "t.yaml:6:7")
    assert "'a'" in note.what and "'b'" in note.what and "t.yaml:7:7" in note.why
    assert "groups {web}" in note.why and "memory 64G" in note.why
    assert not found(policy(b, a), "P041")  # a guard comes first
    assert not found(policy(a, a.replace("id: a", "id: c").replace("web", "db")), "P041")  # both do the same


def test_an_exception_before_its_rule_is_not_noted():
    narrow = "{id: a, match: {groups: web, memory: {min: 64G}}, strategy: [kdump_reset]}"
    wide = "{id: b, match: {groups: web}, refuse: no}"
    apart = "{id: c, match: {arch: s390x}, strategy: [kdump_reset], level: audit}"
    assert not found(policy(narrow, wide), "P041")
    assert [p.what.split("'")[1::2] for p in found(policy(narrow, apart), "P041")] == [["a", "c"]]
    assert not found(policy("{id: d, match: {arch: x86_64}, strategy: [kdump_reset]}", apart), "P041")


def test_many_crossings_are_counted():
    some = [
        "{id: g%d, match: {groups: g%d}, strategy: [kdump_reset], settings: {dump: {level: %d}}}" % (n, n, n)
        for n in range(9)
    ]
    notes = found(policy(*some), "P041")
    assert len(notes) == MAX_NOTES + 1 and f"and {9 * 8 // 2 - MAX_NOTES} more" in notes[-1].what


# ---------------------------------------------------------------------- limits


def test_what_is_too_large_is_said_to_be_undecided():
    wide = "{all: [%s]}" % ", ".join(
        "{any: [%s]}" % ", ".join(f"{{tags: {{all: [t{n}-{m}, u{m}-{n}]}}}}" for m in range(9)) for n in range(6)
    )
    p = policy(wide, "{arch: x86_64}")
    (problem,) = found(p, "P042")
    assert problem.severity == "warning" and "'r0'" in problem.what and "alternatives" in problem.why
    assert found(policy(wide, "{arch: x86_64}", "{arch: x86_64, tags: a}"), "P021")  # still proven without it
    require_sound(p, K)


def test_a_search_that_runs_out_of_steps_is_undecided_not_clean(monkeypatch):
    monkeypatch.setattr(boxes, "MAX_STEPS", 1)
    p = policy(
        "{tags: a}", "{tags: {none: [a]}, groups: b}", "{tags: {none: [a]}, groups: {none: [b]}}", "{memory: {min: 1G}}"
    )
    assert {x.id for x in found(p, "P021", "P042")} == {"P042"}
    monkeypatch.undo()
    assert [x.id for x in found(p, "P021", "P042")] == ["P021"]


@pytest.mark.parametrize("strategy", ["kdump_reset", "custom_handler", "crash_kexec_post_notifiers"])
@pytest.mark.parametrize("wish", ["auto", "on", "off"])
def test_what_stops_a_plan_is_every_error_of_lint(strategy, wish):
    """`kdo plan` looks at as little as it can; it must find the same errors all the same."""
    outcome = "strategy: [%s], settings: {post_notifiers: '%s'}" % (strategy, wish)
    matches = [
        "{arch: s390x}",
        "{arch: aarch64, hypervisor: hyperv}",
        "{role: container}",
        "{arch: ppc64le}",
        "{host: 'a*'}",
    ]
    p = policy(*matches, "{host: 'ab'}", outcome=outcome)
    errors = [x for x in lint(p, K) if x.severity == "error"]
    with pytest.raises(PolicyError) as e:
        require_sound(p, K)
    assert e.value.problems == errors and errors
