# SPDX-License-Identifier: Apache-2.0
"""A rollout over two guests whose canary is crashed for real: nobody else is touched before its vmcore is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.resets import Resets
from orchestrator.lab.treehash import diff_trees

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]

POLICY = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: careful}
spec:
  extends: [default]
  rollout: {canary: [web1], soak: 5}
"""
DROP_IN = "/etc/systemd/system/kdump-tools-dump.service.d"


def kdo(home: Path, *words: str, code: int) -> str:
    command = [sys.executable, "-m", "orchestrator", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, timeout=3600, check=False)
    print(*words[:2], done.returncode, done.stderr[-3000:])
    assert done.returncode == code, (words, done.returncode, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def test_a_lost_dump_of_the_canary_spares_the_others_and_a_dump_lets_the_run_go_on(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDO_STORE", str(artifacts / "store.db"))
    monkeypatch.setenv("XDG_STATE_HOME", str(artifacts / "state"))
    (artifacts / "careful.yaml").write_text(POLICY)
    spec = ImageSpec(installed=True)
    disk, machine = build_image(spec), Machine.of(spec)
    with (
        Guest(disk, artifacts / "one", name="web1", machine=machine) as canary,
        Guest(disk, artifacts / "two", name="web2", machine=machine) as other,
        Resets(canary, None),
        Resets(other, None),
    ):
        canary.wait_ssh(900)
        other.wait_ssh(900)
        (artifacts / "hosts.ini").write_text(f"{canary.inventory_line()}\n{other.inventory_line()}\n")
        # A capture kernel that boots again without having saved anything.
        lost = "[Service]\nExecStart=\nExecStart=/sbin/reboot -f\n"
        canary.ssh(f"mkdir -p {DROP_IN} && cat > {DROP_IN}/lab.conf", stdin=lost)
        before, boot = other.tree_hash(), other.boot_id()
        apply = ("apply", "-i", "hosts.ini", "-p", "careful.yaml", "-y", "--reboot", "--prove-canary")
        kdo(artifacts, *apply, "--consent", "web1", code=3)
        run = json.loads(kdo(artifacts, "runs", "show", "last", "--all", "--format", "json", code=0))["run"]
        assert run["state"] == "held" and "the canary web1 left no vmcore" in run["why"], run
        assert run["tally"] == {"changed": 1, "waiting": 1}
        assert diff_trees(before, other.tree_hash()) == [] and other.boot_id() == boot
        kdo(artifacts, "runs", "resume", "last", code=3)  # nobody consents
        assert other.boot_id() == boot

        canary.ssh(f"rm -r {DROP_IN}")
        shown = kdo(artifacts, "runs", "resume", run["id"], "--consent", "web1", "--format", "json", code=0)
        assert json.loads(shown) == {
            "format_version": "1.0",
            "run": run["id"],
            "state": "done",
            "hosts": {"changed": 2},
        }
        assert other.boot_id() != boot
        rows = [json.loads(x) for x in kdo(artifacts, "status", "web*", "--format", "jsonl", code=0).splitlines()]
        assert {r["host"]: r["proof"] for r in rows} == {"web1": "proven", "web2": "never proven"}
        validated = json.loads(
            kdo(artifacts, "validate", "-i", "hosts.ini", "-p", "careful.yaml", "--format", "json", code=0)
        )
        assert [(h["status"], h["proof"]["state"]) for h in validated["hosts"]] == [
            ("pass", "proven"),
            ("pass", "never proven"),
        ]
        trail = [
            json.loads(x) for x in kdo(artifacts, "audit", "list", "--all", "--format", "jsonl", code=0).splitlines()
        ]
        crashed = [e["detail"]["outcome"] for e in trail if e["what"] == "crashed on purpose"]
        assert crashed == ["lost", "dumped"], trail
        kdo(artifacts, "audit", "verify", code=0)
