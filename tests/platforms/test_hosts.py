# SPDX-License-Identifier: Apache-2.0
"""Every recorded host is probed as a tree, classified, and compared with what it is."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.documents.base import encode, pretty
from orchestrator.documents.platform import Platform
from orchestrator.platforms.classify import classify
from tests.platforms.hosttree import host_files, load_host

NAMES = [p.stem for p in host_files()]
FIELDS = set(Platform.__struct_fields__)


def test_there_are_enough_hosts():
    assert len(NAMES) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_host_is_recognised(name, recorded):
    host = load_host(next(p for p in host_files() if p.stem == name))
    wanted = host["expect"]["platform"]
    assert set(wanted) <= FIELDS
    found = classify(recorded(name))
    got = {key: getattr(found, key) for key in wanted}
    assert got == wanted, pretty(found).decode()


@pytest.mark.parametrize("name", NAMES)
def test_verdict_is_deterministic_and_explained(name, recorded):
    facts = recorded(name)
    first = classify(facts)
    assert encode(first) == encode(classify(msgspec.json.decode(encode(facts), type=type(facts))))
    assert first.ambiguous == bool(first.contradictions)
    if first.hypervisor != "unknown":
        assert first.evidence
    for evidence in first.evidence:
        assert evidence.ref
        assert len(evidence.value) <= 200


@pytest.mark.parametrize("name", NAMES)
def test_host_file_says_where_it_comes_from_and_keeps_no_identity(name):
    host = load_host(next(p for p in host_files() if p.stem == name))
    assert host["origin"].startswith(("recorded", "built from public documentation: "))
    assert not [p for p in host["tree"] if "serial" in p or "uuid" in p or "machine-id" in p]
