# SPDX-License-Identifier: Apache-2.0
"""A policy on every platform that there can be: each rule together with each row of knowledge, computed exactly."""

from __future__ import annotations

import msgspec

from orchestrator.documents.decision import LAYERS
from orchestrator.documents.matrix import Matrix, MatrixCase, MatrixCell
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy import layers as on_layers
from orchestrator.policy.context import Cell
from orchestrator.policy.load import Policy, Rule
from orchestrator.policy.space import ARCHES, HYPERVISORS, Space

A, B, C = LAYERS
_UNABLE = ("absent", "forbidden")


def _layers(rule: Rule, row: Row, strategy: str) -> dict[str, str]:
    known = row.data["layers"]
    wanted, _ = on_layers.notifiers(known[A], strategy, rule)
    return {
        A: {True: "on", False: "off", None: "kept"}[wanted],
        B: "impossible" if known[B]["state"] == "absent" else "expected",
        C: "impossible" if known[C]["state"] in _UNABLE else "on",
    }


def _case(rule: Rule, row: Row, example: str, knowledge: Knowledge, ordinary: bool) -> MatrixCase:
    base = MatrixCase(
        example=example, rule=rule.id, rule_where=rule.where, row=row.id, title=row.data.get("title", row.id), outcome="refuse", ordinary=ordinary
    )  # fmt: skip
    refuse = row.data.get("refuse", {})

    if refuse and (not rule.disable or refuse.get("always")):
        return msgspec.structs.replace(base, why=refuse["why"])
    if rule.refuse:
        return msgspec.structs.replace(base, why=rule.refuse)
    if rule.disable:
        return msgspec.structs.replace(base, outcome="disable", why=rule.disable)
    unproven = bool(rule.settings.get("allow_unproven", False))
    alternatives = [on_layers.judge(n, row.data["layers"][n], row, None, unproven, knowledge) for n in LAYERS]
    strategy, refusal = on_layers.choose(rule, row, alternatives, unproven)
    refusals = [refusal] if refusal else on_layers.forbidden_wishes(rule, row, row.data["layers"][A], knowledge)
    if refusals:
        return msgspec.structs.replace(base, why=refusals[0].why)
    needs = row.data.get("requires", {}).get("feature", "")
    outcome = "audit" if rule.level == "audit" else "act"
    layers = _layers(rule, row, strategy)
    return msgspec.structs.replace(base, outcome=outcome, strategy=strategy, layers=layers, needs=needs)


def _ordinary(arch: str, hypervisor: str, policy: Policy, knowledge: Knowledge) -> tuple[str, str]:
    """Ids of rule and row for a host of that kind without anything special: a recent kernel, no unusual feature."""
    role = "host" if hypervisor in ("none", "lpar") else "unknown" if hypervisor == "unknown" else "guest"
    variant = {"xen": "hvm" if arch == "x86_64" else "", "hyperv": "gen2"}.get(hypervisor, "")
    values = {
        "arch": arch, "hypervisor": hypervisor, "role": role, "variant": variant, "confidential": "none", "confidential_host": "",
        "ambiguous": False, "paravisor": False, "cloud": "", "product": "", "kernel": "999", "memory": 16 << 30,
        "family": "debian", "distribution": "debian", "distribution_version": "13", "boot_stack": "grub", "firmware": "efi",
        "page_size": "4k", "host": "host", "groups": frozenset(), "tags": frozenset(), "drivers": frozenset(),
    }  # fmt: skip
    cell = Cell({**values, **{f"feature:{name}": False for name in knowledge.features}})
    rule = next(r for r in policy.rules if r.match.test(cell) is True)
    row = next(r for r in knowledge.rows if r.match.test(cell) is True)
    return rule.id, row.id


def matrix(policy: Policy, knowledge: Knowledge) -> Matrix:
    """Every arch under every hypervisor; per cell every rule and row that can meet there, each with an example host."""
    space = Space(policy.rules, knowledge)
    cells = []
    for arch in ARCHES:
        for hypervisor in HYPERVISORS:
            usual = _ordinary(arch, hypervisor, policy, knowledge)
            cases = [
                _case(rule, row, witness.text, knowledge, (rule.id, row.id) == usual)
                for rule, row, witness in space.pairs({"arch": arch, "hypervisor": hypervisor})
            ]
            cells.append(MatrixCell(arch=arch, hypervisor=hypervisor, cases=cases))
    return Matrix(
        policy=policy.name, policy_hash=policy.hash, arches=list(ARCHES), hypervisors=list(HYPERVISORS), cells=cells
    )
