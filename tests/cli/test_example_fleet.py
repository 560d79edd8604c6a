# SPDX-License-Identifier: Apache-2.0
"""kdo facts --example: the shipped fleet is the one that its builder makes, and other verbs take it."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli.main import cli
from orchestrator.errors import InvalidInput
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import load
from tests.example_fleet import FILE, fleet, text


def facts(capsysbinary, *names: str) -> bytes:
    cli.main(["facts", "--example", *names], standalone_mode=False)
    return capsysbinary.readouterr().out


def test_the_shipped_file_is_up_to_date():
    assert FILE.read_bytes() == text(), "run: python -m tests.example_fleet"


def test_it_is_printed_without_a_store(tmp_path, monkeypatch, capsysbinary):
    monkeypatch.setenv("KDO_STORE", str(tmp_path / "nowhere.db"))
    assert facts(capsysbinary) == text()
    lines = facts(capsysbinary, "web*", "db1").splitlines()
    assert [json.loads(line)["host"] for line in lines] == ["db1", "web1", "web2", "web3", "web4"]
    with pytest.raises(InvalidInput, match="no such host"):
        facts(capsysbinary, "nobody")
    assert not (tmp_path / "nowhere.db").exists()


def test_it_holds_most_of_what_a_real_fleet_holds():
    knows = knowledge()
    pipeline = Pipeline(load("default", knows), knows)
    plans = [pipeline.plan(f) for f in fleet()]
    assert {p.status for p in plans} == {"changes", "none", "refused", "unsupported"}
    assert {p.strategy for p in plans} >= {"crash_kexec_post_notifiers", "custom_handler", "kdump_reset"}
    assert {f.inventory.groups[0] for f in fleet()} == {"databases", "edge", "lab", "legacy", "containers", "web"}
