# SPDX-License-Identifier: Apache-2.0
"""The matrix says what decisions say."""

import xml.etree.ElementTree as ET

import pytest

from orchestrator.documents.decision import LAYERS
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import load
from orchestrator.policy.matrix import matrix
from orchestrator.reports.matrix import picture
from orchestrator.reports.picture import png, svg
from tests.builders import debian, platform

K = knowledge()
DEFAULT = load("default", K)
FOUND = matrix(DEFAULT, K)
A, B, C = LAYERS


def cell(arch, hypervisor):
    return FOUND.cell(arch, hypervisor)


def test_the_cells_that_matter():
    assert cell("aarch64", "hyperv").ordinary.strategy == A
    assert cell("aarch64", "hyperv").ordinary.layers == {A: "on", B: "impossible", C: "on"}
    assert cell("x86_64", "kvm").ordinary.strategy == B and cell("x86_64", "hyperv").ordinary.layers[A] == "kept"
    assert {c.layers.get(A) for c in cell("s390x", "zvm").cases if c.layers} == {"off"}
    assert cell("x86_64", "powervm").cases == [] and cell("aarch64", "zvm").ordinary is None
    pv = [c for c in cell("x86_64", "xen").cases if c.row == "X13"]
    assert {c.outcome for c in pv} == {"refuse"} and all("SHUTDOWN_crash" in c.why for c in pv)


def test_every_rule_and_every_row_is_somewhere():
    cases = [c for found in FOUND.cells for c in found.cases]
    assert {c.rule for c in cases} == {r.id for r in DEFAULT.rules}
    assert {c.row for c in cases} == {r.id for r in K.rows}


ORDINARY = [
    ("x86_64", "kvm", "guest", {}), ("x86_64", "none", "host", {}), ("aarch64", "kvm", "guest", {}), ("aarch64", "none", "host", {}),
    ("aarch64", "hyperv", "guest", {}), ("s390x", "lpar", "host", {}), ("s390x", "kvm", "guest", {}), ("ppc64le", "kvm", "guest", {}),
    ("ppc64le", "powervm", "guest", {}), ("riscv64", "kvm", "guest", {}), ("loongarch64", "none", "host", {}), ("x86_64", "vmware", "guest", {}),
    ("aarch64", "xen", "guest", {}), ("x86_64", "unknown", "unknown", {}),
]  # fmt: skip


@pytest.mark.parametrize(("arch", "hypervisor", "role", "more"), ORDINARY)
def test_a_decision_for_an_ordinary_host_is_the_one_of_the_cell(arch, hypervisor, role, more):
    d = Decider(DEFAULT, K).decide(debian(), platform(arch=arch, hypervisor=hypervisor, role=role, **more))
    case = cell(arch, hypervisor).ordinary
    assert (d.rule, d.knowledge[0], d.outcome) == (case.rule, case.row, case.outcome)
    assert d.strategy == case.strategy
    if d.outcome == "act":
        assert {n: s for n, s in case.layers.items() if n != B} == {
            layer.name: layer.state for layer in d.layers if layer.name != B
        }


def test_pictures():
    shapes, width, height, title = picture(FOUND)
    text = svg(shapes, width, height, title)
    root = ET.fromstring(text)
    words = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"x86_64", "hyperv", "notifiers"} <= {w.removesuffix(" +") for w in words} and title in text
    assert text == svg(*[picture(FOUND)[i] for i in (0, 1, 2, 3)])
    data = png(shapes, width, height)
    assert data.startswith(b"\x89PNG") and len(data) > 10_000


def test_other_outcomes():
    off = matrix(load("hardened-disabled", K), K)
    assert off.cell("x86_64", "kvm").ordinary.outcome == "disable"
    assert {c.outcome for c in off.cell("x86_64", "kvm").cases} == {"disable", "refuse"}
    z = matrix(load("ibm-z", K), K).cell("s390x", "zvm").ordinary
    assert (z.rule, z.strategy, z.layers[A]) == ("ibm-z", C, "off")
