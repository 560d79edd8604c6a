# SPDX-License-Identifier: Apache-2.0
"""`--waivers`, `kdo policy waivers` and `--require-signed` as a user meets them."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from orchestrator.documents.base import encode
from orchestrator.documents.facts import Facts
from orchestrator.planning.files import read_plan
from orchestrator.policy.signatures import NAMESPACE
from tests.builders import debian
from tests.planning.test_plan import armed

HEAD = "apiVersion: kdump-orchestrator/v1\nkind: Waivers\nspec:\n  waivers:\n"
POLICY = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: ours}\nspec:\n  extends: [default]\n"


def day(days: int) -> str:
    """A day that is so many days away. The tool asks the clock, and no test may wait for it to be right."""
    return (datetime.now(UTC).date() + timedelta(days=days)).isoformat()


def waiver(id: str, about: str, hosts: str = "{host: web1}", days: int = 100) -> str:
    return f"    - {{id: {id}, {about}, hosts: {hosts}, justification: nobody minds it here, approver: ann, expires: {day(days)}}}\n"


@pytest.fixture
def write(tmp_path):
    def run(name: str, *rows: str) -> str:
        (tmp_path / name).write_text(HEAD + "".join(rows))
        return name

    return run


def hosts(tmp_path, *found) -> str:
    (tmp_path / "hosts.jsonl").write_bytes(b"".join(encode(h) + b"\n" for h in found))
    return "hosts.jsonl"


def renamed(name: str) -> Facts:
    return msgspec.structs.replace(armed(), host=name)


def test_a_host_that_fails_only_what_is_waived_passes(kdo, tmp_path, write):
    facts = hosts(tmp_path, debian("web1"), renamed("web2"))
    before = json.loads(kdo("validate", "--facts", facts, "--format", "json").stdout)
    assert before["summary"] == {
        "pass": 1, "fail": 1, "refused": 0, "unsupported": 0, "pass_with_waivers": 0, "waived_checks": 0
    }  # fmt: skip
    failing = [c["id"] for c in before["hosts"][0]["checks"] if c["verdict"] in ("fail", "unknown")]
    assert len(failing) > 1
    file = write("w.yaml", *(waiver(f"w{n}", f"check: {id}") for n, id in enumerate(failing)))
    result = kdo("validate", "--facts", facts, "--waivers", file)
    assert result.returncode == 0 and result.stderr == ""
    assert f"web1: pass ({len(failing)} waived)" in result.stdout
    assert f"  waived  {failing[0]}: " in result.stdout and f"waived until {day(100)} by ann (w0: " in result.stdout
    assert result.stdout.splitlines()[-1] == f"validate: 2 hosts: 2 pass (1 of them with {len(failing)} waived checks)"
    data = json.loads(kdo("validate", "--facts", facts, "--waivers", file, "--format", "json").stdout)
    assert data["summary"]["pass_with_waivers"] == 1 and data["summary"]["waived_checks"] == len(failing)
    assert [(h["host"], h["status"], h["waived"]) for h in data["hosts"]] == [("web1", "pass", len(failing)), ("web2", "pass", 0)]  # fmt: skip
    assert {c["verdict"] for c in data["hosts"][0]["checks"] if c["id"] in failing} == {"waived"}


def test_an_expired_waiver_waives_nothing_and_says_so(kdo, tmp_path, write):
    facts = hosts(tmp_path, debian("web1"))
    result = kdo("validate", "--facts", facts, "--waivers", write("w.yaml", waiver("w", "check: reservation", days=-1)))
    assert result.returncode == 2 and "  fail    reservation: " in result.stdout and "waived" not in result.stdout
    assert f"the waiver w of ann has expired on {day(-1)}" in result.stdout


def test_a_waived_rule_plans_nothing(kdo, tmp_path, write):
    facts = hosts(tmp_path, debian("web1"))
    file = write("w.yaml", waiver("w", "rule: kvm-x86"))
    result = kdo("plan", "--facts", facts, "--waivers", file, "-o", "plan.json")
    assert result.returncode == 0 and "waived: nothing is planned here" in result.stdout
    assert "plan: 1 hosts, 1 waived; 0 changes, 0 reboots needed" in result.stdout
    (host,) = read_plan(tmp_path / "plan.json").hosts
    assert (host.status, host.changes, host.reboot) == ("waived", [], False)
    assert kdo("validate", "--facts", facts, "--waivers", file).returncode == 0
    # Another host is none of its business.
    assert kdo("plan", "--facts", hosts(tmp_path, debian("web2")), "--waivers", file).returncode == 2


def test_what_a_waiver_was_not_about_is_named_on_stderr(kdo, tmp_path, write):
    facts = hosts(tmp_path, renamed("web1"))
    file = write("w.yaml", waiver("idle", "check: target"), waiver("late", "rule: kvm-x86"), waiver("only-planned", "rule: boot-unknown"))  # fmt: skip
    said = kdo("validate", "--facts", facts, "--waivers", file, "--format", "json")
    assert json.loads(said.stdout)["hosts"]
    lines = said.stderr.splitlines()
    assert lines == [f"w.yaml:{n}:7: note: the waiver {id!r} was about nothing in this run" for n, id in ((5, "idle"), (6, "late"))]  # fmt: skip
    planned = kdo("plan", "--facts", facts, "--waivers", file).stderr  # a plan runs no checks
    assert "'idle'" not in planned and "'late'" in planned and "'only-planned'" in planned


def test_5_a_wrong_waivers_file_ends_it_before_any_host_is_asked(kdo, write):
    file = write("w.yaml", waiver("w", "check: reservatoin"), waiver("x", "rule: kvm-x68"))
    for verb in (["plan"], ["validate"], ["apply", "-y"]):  # on this machine: it is not even looked at
        result = kdo(*verb, "--waivers", file)
        assert (result.returncode, result.stdout) == (5, "")
        assert "w.yaml:5:22: error: there is no check 'reservatoin' [W003]" in result.stderr
        assert "did you mean 'kvm-x86'?" in result.stderr and "detecting" not in result.stderr
    for name in ("nowhere.yaml", "."):
        result = kdo("validate", "--waivers", name)
        assert result.returncode == 5 and "cannot read the waivers file" in result.stderr


def test_listing(kdo, write):
    one = write("one.yaml", waiver("far", "check: target", "{groups: [db], host: 'db-*'}"), waiver("near", "rule: X13", days=30))  # fmt: skip
    result = kdo("policy", "waivers", one)
    assert result.returncode == 0
    assert f"valid until {day(100)}" in result.stdout and f"expires within 30 days: {day(30)}" in result.stdout
    assert "{groups: [db], host: db-*}" in result.stdout
    two = write("two.yaml", waiver("gone", "check: target", "{host: old}", days=-1), waiver("long", "check: next-boot", days=400))  # fmt: skip
    result = kdo("policy", "waivers", one, two, "--format", "json")
    data = json.loads(result.stdout)
    assert result.returncode == 2
    assert {w["id"]: w["state"] for w in data["waivers"]} == {"far": "valid", "near": "soon", "gone": "expired", "long": "valid"}  # fmt: skip
    assert [(p["id"], p["severity"], p["where"]) for p in data["problems"]] == [("W006", "warning", "two.yaml:6:7")]
    assert f"expired on {day(-1)}" in kdo("policy", "waivers", two).stdout
    assert kdo("policy", "waivers", one, one).returncode == 5
    assert kdo("policy", "waivers", "policies/examples/none.yaml").returncode == 5
    assert kdo("policy", "waivers").returncode == 5


def test_rules_of_a_policy_are_known_with_p(kdo, tmp_path, write):
    (tmp_path / "p.yaml").write_text(POLICY + "  rules:\n    - {id: ours, match: {host: 'x-*'}, refuse: not here}\n")
    file = write("w.yaml", waiver("w", "rule: ours", "{host: 'x-*'}"))
    alone = kdo("policy", "waivers", file)
    assert alone.returncode == 5 and "name it with -p" in alone.stderr
    assert kdo("policy", "waivers", file, "-p", "p.yaml").returncode == 0
    facts = hosts(tmp_path, debian("x-1"))
    assert kdo("plan", "--facts", facts, "-p", "p.yaml").returncode == 2
    result = kdo("plan", "--facts", facts, "-p", "p.yaml", "--waivers", file)
    assert result.returncode == 0 and "refused: not here" in result.stdout and "waived: nothing" in result.stdout
    assert kdo("validate", "--facts", facts, "-p", "p.yaml", "--waivers", file).returncode == 0


# ---------------------------------------------------------------------- signatures

needs_keys = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (openssh-client)")


@pytest.fixture
def sign(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    (tmp_path / "allowed").write_text(f"ann@example.org {public}\n")

    def run(name: str) -> None:
        (tmp_path / f"{name}.sig").unlink(missing_ok=True)
        arguments = ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", "key", name]
        subprocess.run(arguments, check=True, capture_output=True, cwd=tmp_path)

    return run


@needs_keys
def test_only_signed_policies_count_and_a_plan_says_whose(kdo, tmp_path, sign, write):
    facts = hosts(tmp_path, debian("web1"))
    (tmp_path / "p.yaml").write_text(POLICY)
    file = write("w.yaml", waiver("w", "rule: kvm-x86"))
    chosen = ["--facts", facts, "-p", "p.yaml", "--require-signed", "allowed"]
    for verb in (["plan"], ["validate"], ["explain", "web1"]):
        result = kdo(*verb, *chosen)
        assert (result.returncode, result.stdout) == (5, "") and "p.yaml: error: the file is not signed [P062]" in result.stderr  # fmt: skip
    result = kdo("apply", "-y", "-p", "p.yaml", "--require-signed", "allowed")
    assert result.returncode == 5 and "[P062]" in result.stderr
    sign("p.yaml")
    result = kdo("plan", *chosen, "-o", "plan.json")
    assert result.returncode == 2 and result.stdout.startswith("signed: p.yaml: ann@example.org\n")
    assert read_plan(tmp_path / "plan.json").signers == ["p.yaml: ann@example.org"]
    assert "signed: p.yaml: ann@example.org" in kdo("explain", "web1", *chosen).stdout
    result = kdo("plan", *chosen, "--waivers", file)
    assert result.returncode == 5 and "w.yaml: error: the file is not signed [P062]" in result.stderr
    sign("w.yaml")
    result = kdo("plan", *chosen, "--waivers", file, "--format", "json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["signers"] == ["p.yaml: ann@example.org", "w.yaml: ann@example.org"]
    listed = kdo("policy", "waivers", file, "--require-signed", "allowed", "--format", "json")
    assert [w["signer"] for w in json.loads(listed.stdout)["waivers"]] == ["ann@example.org"]
    (tmp_path / "p.yaml").write_text(POLICY.replace("ours", "theirs"))
    result = kdo("plan", *chosen)
    assert result.returncode == 5 and "changed after it was signed [P064]" in result.stderr


@needs_keys
def test_the_shipped_policy_needs_no_signature(kdo, facts, sign):
    assert kdo("plan", "--facts", facts, "--require-signed", "allowed").returncode == 2
    assert kdo("plan", "--facts", facts, "-p", "aws", "--require-signed", "allowed").returncode == 2


def test_5_no_list_of_signers(kdo, facts):
    result = kdo("plan", "--facts", facts, "--require-signed", "nowhere")
    assert (
        result.returncode == 5 and "nowhere: error: the list of allowed signers cannot be read [P060]" in result.stderr
    )


def test_doctor_looks_for_ssh_keygen(kdo, tmp_path):
    found = {c["what"]: c for c in json.loads(kdo("doctor", "--format", "json").stdout)["checks"]}
    assert found["ssh-keygen"]["ok"] == (shutil.which("ssh-keygen") is not None)
    result = kdo("doctor", "--format", "json", env={"PATH": str(tmp_path)})
    found = {c["what"]: c for c in json.loads(result.stdout)["checks"]}
    assert not found["ssh-keygen"]["ok"] and not found["ssh-keygen"]["needed"]
    assert "openssh-client" in found["ssh-keygen"]["fix"] and "--require-signed" in found["ssh-keygen"]["seen"]
