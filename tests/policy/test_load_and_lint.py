# SPDX-License-Identifier: Apache-2.0
"""Every kind of mistake in a policy: place, reason, way out. Lint against sampling of the same space."""

from __future__ import annotations

import random

import pytest

from orchestrator.errors import Exit, PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.lint import cells, lint
from orchestrator.policy.load import default_path, load, parse

K = knowledge()
GOOD = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: t}
spec:
  rules:
    - id: one
      match: {arch: x86_64}
      strategy: [kdump_reset]
  default: {strategy: [kdump_reset]}
"""


def problems(text):
    with pytest.raises(PolicyError) as e:
        parse(text, "t.yaml", K)
    assert e.value.exit_code == Exit.INVALID
    return e.value.problems


@pytest.mark.parametrize(
    ("old", "new", "where", "id", "fix"),
    [
        ("kind: Policy", "kind: Polizei", "t.yaml:2:7", "P005", "Policy"),
        ("metadata: {name: t}", "metadata: {name: t, owner: x}", "t.yaml:3:21", "P002", "known here"),
        ("  rules:", "  rulez:", "t.yaml:5:3", "P002", "did you mean 'rules'"),
        ("match: {arch: x86_64}", "match: {arch: x86-64}", "t.yaml:7:21", "P005", "did you mean 'x86_64'"),
        ("match: {arch: x86_64}", "match: {arhc: x86_64}", "t.yaml:7:15", "P002", "did you mean 'arch'"),
        ("match: {arch: x86_64}", "match: {features: [warp_drive]}", "t.yaml:7:14", "P015", "one of"),
        ("match: {arch: x86_64}", "match: {memory: {min: lots}}", "t.yaml:7:29", "P007", ""),
        ("      strategy: [kdump_reset]\n", "", "t.yaml:6:7", "P004", "add one"),
        ("strategy: [kdump_reset]\n  default", "strategy: [kdump_rest]\n  default", "t.yaml:8:18", "P005", "did you mean 'kdump_reset'"),
        ("strategy: [kdump_reset]\n  default", "strategy: kdump_reset\n  default", "t.yaml:8:17", "P006", ""),
        ("  default: {strategy: [kdump_reset]}\n", "", "t.yaml:5:3", "P003", "add default:"),
        ("    - id: one\n", "    - id: one\n      id: two\n", "t.yaml:7:7", "P001", "keep one"),
        ("default: {strategy", "default: {settings: {reservation: {crashkernel: 2G-1G:64M}}, strategy", "t.yaml:9:51", "P010", "swap"),
        ("default: {strategy", "default: {settings: {capture: {ensure: [a=1, a=2]}}, strategy", "t.yaml:9:48", "P011", "keep one"),
        ("default: {strategy", "default: {settings: {capture: {ensure: [elfcorehdr=1]}}, strategy", "t.yaml:9:43", "P012", "remove"),
        ("default: {strategy", "default: {settings: {capture: {ensure: [a=1], remove: [a]}}, strategy", "t.yaml:9:58", "P013", "keep one"),
        ("default: {strategy", "default: {settings: {sysctls: {kernel.core_pattern: 1}}, strategy", "t.yaml:9:33", "P005", ""),
        ("default: {strategy", "default: {settings: {target: {path: '/a b; rm -rf /'}}, strategy", "t.yaml:9:39", "P007", ""),
        ("arch: x86_64", "kernel: {min: 6}", "t.yaml:7:29", "P006", "in quotes"),
    ],
)  # fmt: skip
def test_mistakes(old, new, where, id, fix):
    assert old in GOOD
    found = problems(GOOD.replace(old, new, 1))
    p = next((x for x in found if x.id == id and x.where == where), None)
    assert p is not None, [x.lines() for x in found]
    assert p.what and p.why and fix in p.fix


@pytest.mark.parametrize("text", ["", "[]", "x", "a: [", "{", "\x00", "- a\n- b", "a: !!python/object:os.system x"])
def test_things_that_are_no_policy(text):
    assert all(p.where.startswith("t.yaml") for p in problems(text))


def test_all_mistakes_are_told_at_once():
    text = GOOD.replace("arch: x86_64", "arch: amd64").replace("metadata: {name: t}", "metadata: {name: T}")
    assert len(problems(text)) == 2


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(PolicyError, match="cannot read"):
        load(tmp_path / "none.yaml", K)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(PolicyError, match="UTF-8"):
        load(tmp_path / "latin.yaml", K)


def test_the_shipped_policy_is_clean():
    assert lint(load(default_path(), K), K) == []


def rules(*lines):
    text = (
        GOOD.split("  rules:", maxsplit=1)[0]
        + "  rules:\n"
        + "".join(f"    - {line}\n" for line in lines)
        + "  default: {strategy: [kdump_reset]}\n"
    )
    return parse(text, "t.yaml", K)


def ids(policy):
    return [(p.id, p.severity) for p in lint(policy, K) if p.id not in ("P040", "P041")]


def test_shadowed_and_contradictory_rules_are_errors():
    wide, narrow = (
        "{id: a, match: {arch: x86_64}, strategy: [kdump_reset]}",
        "{id: b, match: {arch: x86_64, hypervisor: kvm}, refuse: no}",
    )
    assert ids(rules(wide, narrow)) == [("P021", "error")]
    assert ids(rules(narrow, wide)) == []
    assert ids(rules("{id: c, match: {arch: aarch64, not: {arch: aarch64}}, strategy: [kdump_reset]}")) == [
        ("P020", "error")
    ]
    assert ids(rules("{id: d, match: {arch: aarch64, hypervisor: zvm}, strategy: [kdump_reset]}")) == [
        ("P020", "error")
    ]


def test_rules_that_depend_on_more_than_the_platform_are_not_called_shadowed():
    a = "{id: a, match: {arch: x86_64, memory: {below: 8G}}, strategy: [kdump_reset]}"
    b = "{id: b, match: {arch: x86_64}, refuse: no}"
    assert ids(rules(a, b)) == []


def test_impossible_and_useless_strategies():
    assert ids(rules("{id: a, match: {arch: aarch64}, strategy: [custom_handler]}")) == [("P030", "error")]
    assert ids(rules("{id: a, match: {arch: aarch64}, strategy: [custom_handler, kdump_reset]}")) == [
        ("P032", "warning")
    ]
    off = "{id: a, match: {arch: aarch64, hypervisor: hyperv}, strategy: [crash_kexec_post_notifiers], settings: {post_notifiers: 'off'}}"
    assert ids(rules(off)) == [("P031", "error")]


def test_lint_agrees_with_sampling():
    """A rule that lint calls unreachable is never chosen in any cell, and one that it does not is chosen somewhere."""
    rng = random.Random(20261123)
    for _ in range(60):
        lines = []
        for i in range(rng.randint(2, 5)):
            clauses = []
            if rng.random() < 0.8:
                clauses.append(f"arch: {rng.choice(['x86_64', 'aarch64', 's390x'])}")
            if rng.random() < 0.5:
                clauses.append(f"hypervisor: [{', '.join(rng.sample(['kvm', 'hyperv', 'none', 'xen'], 2))}]")
            lines.append("{id: r%d, match: {%s}, refuse: r%d}" % (i, ", ".join(clauses), i))
        policy = rules(*lines)
        called = {p.what.split("'")[1] for p in lint(policy, K) if p.id in ("P020", "P021")}
        chosen = {next(r.id for r in policy.rules if r.match.test(c) is True) for c in cells()}
        assert called == {r.id for r in policy.rules if r.id != "default"} - chosen
