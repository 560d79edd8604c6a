# SPDX-License-Identifier: Apache-2.0
"""sweep, status, runs, audit, enforce and ingest as processes, with this machine as the fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A store with two sweeps of this machine, and a way to call kdo on it."""
    folder = tmp_path_factory.mktemp("fleet")
    env = {
        **os.environ,
        "KDO_STORE": str(folder / "store.db"),
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
    }

    def kdo(*words: str, code: int | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "orchestrator", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, check=False)
        assert "Traceback" not in done.stderr
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    kdo.folder = folder
    kdo("status", code=5)
    assert not (folder / "store.db").exists(), "asking makes nothing"
    for _ in range(2):
        assert kdo("sweep").returncode in (0, 2)
    return kdo


def data(done):
    return json.loads(done.stdout)


def test_status_of_one_host_and_of_all(fleet):
    status = data(fleet("status", "--format", "json"))
    assert status["hosts"] == 1 and sum(status["states"].values()) == 1 and len(status["platforms"]) == 1
    state = next(iter(status["states"]))
    assert state in fleet("status").stdout and "1 hosts" in fleet("status").stdout
    one = fleet("status", "localhost", code=0).stdout
    assert f"localhost: {state}" in one and one.count("run 20") == 2 and os.uname().release in one
    row = json.loads(fleet("status", "local*", "--state", state, "--format", "jsonl", code=0).stdout)
    assert row["host"] == "localhost" and row["seen"] and row["since"] <= row["seen"]
    assert "did you mean 'drift'" in fleet("status", "--state", "drfit", code=5).stderr
    assert "not on record" in fleet("status", "web1", code=5).stderr
    assert "no host" in fleet("status", "--tag", "x=y", code=0).stderr


def test_facts_on_record_are_what_other_verbs_take(fleet):
    lines = fleet("facts", "local*", code=0).stdout
    assert json.loads(lines)["host"] == "localhost"
    (fleet.folder / "facts.jsonl").write_text(lines)
    assert data(fleet("plan", "--facts", "facts.jsonl", "--format", "json"))["hosts"][0]["host"] == "localhost"
    assert "no facts on record" in fleet("facts", "nobody", code=5).stderr


def test_runs(fleet):
    listed = data(fleet("runs", "list", "--format", "json", code=0))["runs"]
    assert [r["kind"] for r in listed] == ["sweep", "sweep"] and all(r["state"] == "done" for r in listed)
    new, old = (r["id"] for r in listed)
    assert new in fleet("runs", "list").stdout
    shown = data(fleet("runs", "show", new, "--all", "--format", "json", code=0))["run"]
    assert (
        shown["tally"] == listed[0]["tally"]
        and shown["on"][0]["host"] == "localhost"
        and shown["waves"][0]["state"] == "done"
    )
    assert "as it did before" in fleet("runs", "compare", old, code=0).stdout
    assert "no run" in fleet("runs", "show", "19990101", code=5).stderr
    for verb in ("pause", "cancel", "resume"):
        assert "the run is done" in fleet("runs", verb, new, code=5).stderr
    assert "0 runs" in fleet("runs", "prune", "-y", code=0).stdout


def test_the_audit_trail(fleet):
    found = data(fleet("audit", "verify", "--format", "json", code=0))
    assert found["broken"] is None and found["entries"] >= 6
    assert fleet("audit", "verify", "--known", found["last"], code=0)
    assert "cut off" in fleet("audit", "verify", "--known", "f" * 64, code=2).stdout
    entries = [json.loads(x) for x in fleet("audit", "list", "--all", "--format", "jsonl", code=0).stdout.splitlines()]
    assert [e["what"] for e in entries[:3]] == ["sweep begun", "running", "done"] and "sweep begun" in fleet(
        "audit", "list"
    ).stdout
    assert entries[0]["detail"]["settings"] and entries[1]["detail"] == {}


def test_enforce_where_nothing_may_be_done_or_nothing_has_drifted(fleet):
    done = fleet("enforce", "--format", "json")
    assert done.returncode in (0, 2) and data(done)["run"] == ""
    assert "no time" in fleet("enforce", "--every", "sometimes", code=5).stderr


def test_reports_of_hosts_come_on_record(fleet):
    spool = fleet.folder / "reports"
    spool.mkdir()
    fleet("watch", "--once", "--report", str(spool))
    (spool / "odd.json").write_text("{")
    done = fleet("ingest", str(spool), "--remove", "--format", "json", code=3)
    said = data(done)
    assert said["hosts"] == 1 and len(said["refused"]) == 1 and "odd.json" in done.stderr
    assert [p.name for p in spool.iterdir()] == ["odd.json"], "what was read is removed, what was refused is not"
    assert data(fleet("status", "--format", "json"))["hosts"] == 2
    runs = data(fleet("runs", "list", "-n", "1", "--format", "json"))["runs"]
    assert (runs[0]["kind"], runs[0]["hosts"]) == ("pull", 1)
    assert "no such file" in fleet("ingest", "nowhere", code=5).stderr


def test_a_queue_needs_postgresql_and_nothing_is_entered_without(fleet):
    before = data(fleet("runs", "list", "-n", "999", "--format", "json"))["runs"]
    for verb in (
        ["sweep", "--engine", "queue"],
        ["enforce", "--engine", "queue"],
        ["worker"],
        ["apply", "-y", "--engine", "queue"],
    ):
        assert "needs a store on PostgreSQL" in fleet(*verb, code=5).stderr
    assert data(fleet("runs", "list", "-n", "999", "--format", "json"))["runs"] == before
    assert "cannot be used" in fleet("status", "--store", "postgresql://postgres@127.0.0.1:1/x", code=4).stderr


def test_a_wave_that_is_no_number(fleet):
    assert "no number of hosts" in fleet("apply", "--waves", "1,lots", code=5).stderr
    assert "no number of hosts" in fleet("apply", "--max-fail", "-1", code=5).stderr


def test_apply_says_the_same_with_and_without_a_record(fleet):
    """On this machine nothing is to be changed, or nothing may be: both ways come to the same code and change nothing."""
    checked, applied = fleet("apply", "--check"), fleet("apply", "-y")
    assert checked.returncode == applied.returncode
    assert checked.stdout.splitlines()[-1] == applied.stdout.splitlines()[-1]


def test_report_of_the_store_and_of_saved_documents(fleet):
    folder = fleet.folder
    here = ("--host", "localhost")
    done = fleet("report", "--format", "json", *here)
    assert done.returncode in (0, 2)
    found = data(done)
    (host,) = found["hosts"]
    state = host["state"]
    assert found["kind"] == "Report" and found["states"] == {state: 1}
    assert host["host"] == "localhost" and host["kernel"] == os.uname().release and host["run"]
    assert state in fleet("report", *here).stdout
    for form in ("markdown", "junit", "sarif"):
        assert fleet("report", "--format", form, *here).returncode == done.returncode
    assert fleet("report", "--format", "csv", *here, code=0).stdout.count("\n") == 2
    assert f'kdo_hosts{{state="{state}"}} 1' in fleet("report", "--format", "prometheus", *here, code=0).stdout
    assert data(fleet("report", "--format", "json", "--host", "web*", code=0))["hosts"] == []
    # What it has written it reads, and what other verbs have written.
    (folder / "report.json").write_text(done.stdout)
    again = fleet("report", "report.json", "--format", "json", code=done.returncode)
    assert data(again)["hosts"] == found["hosts"]
    (folder / "verdicts.jsonl").write_text(fleet("validate", "--format", "jsonl").stdout)
    fleet("plan", "-o", "plan.json")
    for name in ("verdicts.jsonl", "plan.json"):
        (row,) = data(fleet("report", name, "--format", "json"))["hosts"]
        assert row["host"] == "localhost" and row["arch"] == host["arch"] and row["hypervisor"] == host["hypervisor"]
    # Into a file: whole, with the permissions that a collector needs.
    fleet("report", "--format", "prometheus", "-o", "kdo.prom", code=0)
    assert (folder / "kdo.prom").stat().st_mode & 0o777 == 0o644 and "kdo_build_info" in (
        folder / "kdo.prom"
    ).read_text()
    for words, said in (
        (("-o", "x.txt"), "a table is for a terminal"), (("--state", "drfit"), "did you mean 'drift'"),
        (("nothing.json",), "nothing.json cannot be read"), (("--format", "csv", "-o", "no/such"), "cannot be written"),
        (("--format", "csv", "-o", "x", "--mode", "9"), "no permissions"), (("--store", "none.db"), "none.db"),
    ):  # fmt: skip
        assert said in fleet("report", *words, code=5).stderr, words
    assert not (folder / "none.db").exists()
