# SPDX-License-Identifier: Apache-2.0
"""What `kdo validate` says is proven: from the proofs of this account, and from the fleet's store."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.documents.base import encode
from orchestrator.documents.proof import Proof
from orchestrator.engine.look import looked
from orchestrator.proof.store import keep
from orchestrator.store.hosts import keep_proof
from orchestrator.store.store import Store
from tests.simulated import settled
from tests.web.serving import NOBODY, PIPELINE


@pytest.fixture
def proof():
    seen = looked(PIPELINE, NOBODY, settled("web1"))
    return Proof(how="crash-test", host="web1", at="2026-11-24T03:00:00Z", outcome="dumped", crash="sysrq",
                 kernel=seen.kernel, state=seen.desired)  # fmt: skip


def standing(kdo, *words):
    """What is said of web1, and stderr."""
    done = kdo("validate", "--facts", "facts.json", "--format", "json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["hosts"][0]["proof"]["state"], done.stderr


def tree(folder: Path):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_proof_counts_wherever_it_is_kept_and_asking_writes_nothing(kdo, tmp_path, proof, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KDO_STORE", raising=False)
    (tmp_path / "facts.json").write_bytes(encode(settled("web1")))
    assert standing(kdo) == ("never proven", "") and not (tmp_path / "state").exists()
    team = str(tmp_path / "team.db")
    with Store(team) as store:
        keep_proof(store.database, proof)
    before = tree(tmp_path)
    assert standing(kdo, "--store", team) == ("proven", "")
    assert standing(kdo) == ("never proven", "")
    monkeypatch.setenv("KDO_STORE", team)
    assert standing(kdo) == ("proven", "")
    assert tree(tmp_path) == before
    keep(proof, tmp_path / "state/kdump-orchestrator/proofs")
    assert standing(kdo) == ("proven", "")


def test_a_store_that_does_not_answer_keeps_nobody_from_validating(kdo, tmp_path, proof, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "facts.json").write_bytes(encode(settled("web1")))
    keep(proof, tmp_path / "state/kdump-orchestrator/proofs")
    monkeypatch.setenv("KDO_STORE", "postgresql://127.0.0.1:1/nothing")
    state, said = standing(kdo)
    assert state == "proven" and "not considered" in said and "Traceback" not in said
    assert os.environ["KDO_STORE"] and standing(kdo, "--store", str(tmp_path / "none.db"))[0] == "proven"
