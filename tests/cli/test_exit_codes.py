# SPDX-License-Identifier: Apache-2.0
"""Every documented exit code, bad input of every kind, and hosts that cannot be asked."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from orchestrator.documents.base import encode, to_builtins
from orchestrator.errors import Exit
from orchestrator.planning.files import read_plan, write_plan
from tests.builders import debian, kernel
from tests.planning.test_plan import armed


def write(tmp_path: Path, name: str, *hosts) -> str:
    path = tmp_path / name
    path.write_bytes(b"".join(encode(h) + b"\n" for h in hosts))
    return str(path)


def test_codes_are_the_documented_ones():
    text = (Path(__file__).parents[2] / "docs/exit-codes.md").read_text()
    documented = {
        int(line.split("|")[1])
        for line in text.splitlines()
        if line.startswith("| ") and line.split("|")[1].strip().isdigit()
    }
    assert documented == {int(code) for code in Exit}


def test_0_when_nothing_is_to_do(kdo, tmp_path):
    good = write(tmp_path, "good.jsonl", armed())
    assert kdo("plan", "--facts", good).returncode == 0
    assert kdo("validate", "--facts", good).returncode == 0
    assert kdo("policy", "lint").returncode == 0


def test_1_is_a_fault_of_ours(kdo):
    code = "import orchestrator.cli.doctor as d, orchestrator.fleet.doctor as f; f.examine = lambda **k: 1 / 0; d.command.main(['--format', 'json'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "ZeroDivisionError" in result.stderr


def test_2_when_changes_are_pending_or_something_is_wrong(kdo, facts):
    assert kdo("plan", "--facts", facts).returncode == 2
    assert kdo("validate", "--facts", facts).returncode == 2


def test_3_a_host_that_fails_does_not_stop_the_others(kdo, tmp_path):
    inventory = tmp_path / "inv.yaml"
    hosts = {
        "good": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
        "no-python": {"ansible_connection": "local", "ansible_python_interpreter": "/nonexistent/python"},
        "no-sudo": {"ansible_connection": "local", "ansible_become": True,
            "ansible_become_user": "nobody", "ansible_become_exe": "/nonexistent/sudo", "ansible_python_interpreter": sys.executable},
    }  # fmt: skip
    inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
    result = kdo("detect", "-i", str(inventory), "--format", "json")
    data = json.loads(result.stdout)
    assert result.returncode == 3
    assert [h["host"] for h in data["hosts"]] == ["good"]
    problems = {p["host"]: p for p in data["problems"]}
    assert set(problems) == {"no-python", "no-sudo"} and all(p["fix"] for p in problems.values())
    assert "python" in problems["no-python"]["what"].lower()
    assert "root" in problems["no-sudo"]["what"] or "sudo" in problems["no-sudo"]["why"]


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs an ssh client")
def test_4_unreachable_hosts_are_named(kdo, tmp_path):
    inventory = tmp_path / "inv.ini"
    inventory.write_text(
        f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n"
        "gone ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ConnectTimeout=2'\n"
    )
    result = kdo("detect", "-i", str(inventory), "--format", "json")
    data = json.loads(result.stdout)
    assert (result.returncode, [p["host"] for p in data["problems"]], len(data["hosts"])) == (4, ["gone"], 1)
    assert "gone: error: the host cannot be reached" in result.stderr and "fix:" in result.stderr


BROKEN = (
    "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: x}\nspec:\n  default: {strategy: [kdump_rest]}\n"
)


@pytest.mark.parametrize("verb", ["plan", "validate", "explain"])
def test_5_an_invalid_policy_touches_nothing(kdo, tmp_path, facts, verb):
    (tmp_path / "bad.yaml").write_text(BROKEN)
    result = kdo(verb, "-p", "bad.yaml", "--facts", facts, *(["web1"] if verb == "explain" else []))
    assert result.returncode == 5 and result.stdout == ""
    assert result.stderr.startswith("bad.yaml:5:24: error: ") and "did you mean 'kdump_reset'" in result.stderr
    assert kdo("policy", "lint", "bad.yaml").returncode == 5
    assert kdo("apply", "-p", "bad.yaml", "-y").returncode == 5


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "-i", "nowhere.ini"], "there is no inventory"),
        (["plan", "--facts", "nowhere.json"], "cannot read the facts"),
        (["plan", "--limit", "x"], "--limit needs an inventory"),
        (["plan", "-i", "a,", "--facts", "b"], "exclude each other"),
        (["detect", "--root", "nowhere"], "there is no such tree"),
        (["apply", "nowhere.json"], "cannot read the plan"),
        (["plan", "-p", "nowhere.yaml"], "cannot read the policy"),
        (["plan", "--format", "xml"], "xml"),
        (["rollback", "web1", "-y"], "there is no host"),  # never this machine instead of the one that was named
        (["explain", "web1"], "there is no host"),
        (["plam"], "plam"),
        (["explain", "nobody", "--facts", "facts.jsonl"], "there is no host"),
        (["explain", "--facts", "facts.jsonl"], "more than one host"),
    ],
)
def test_5_wrong_input(kdo, facts, arguments, says):
    result = kdo(*arguments)
    assert result.returncode == 5 and says in result.stderr and result.stdout == ""


def test_5_inventories_that_are_none(kdo, tmp_path):
    (tmp_path / "bad.yaml").write_text("all: [unclosed")
    (tmp_path / "some.ini").write_text("a ansible_connection=local\n")
    for arguments in (["-i", "bad.yaml"], ["-i", "some.ini", "--limit", "zzz"]):
        result = kdo("detect", *arguments)
        assert (result.returncode, result.stdout) == (5, "") and "fix:" in result.stderr, result.stderr


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1, 2", b'{"a": 1}', b"\xff\xfe", b'{"hosts": [{}]}\n{"x"', b"null", b"[" * 100_000]
)
def test_5_facts_that_are_none(kdo, tmp_path, text):
    (tmp_path / "bad.json").write_bytes(text)
    result = kdo("plan", "--facts", "bad.json")
    assert result.returncode == 5 and "bad.json" in result.stderr, (result.stdout, result.stderr)


def test_3_hostile_facts_are_reported_per_host_and_the_others_go_on(kdo, tmp_path):
    good = to_builtins(debian("good"))
    wrong_type = {**good, "host": "wrong-type", "kernel": {"release": 7}}
    huge = {**good, "host": "huge", "kernel": {**good["kernel"], "cmdline": "x" * (10 << 20)}}
    half = {"host": "half", "signals": {"machine": "x86_64"}}
    future = {**good, "host": "future", "format_version": "9.0"}
    hostile_text = "\x1b]0;owned\x07$(touch /tmp/kdo-owned) {{ lookup('pipe', 'id') }} `id` \u202e"
    hostile = {
        **good,
        "host": "evil\x1b[2J",
        "signals": {**good["signals"], "dmi": {"sys_vendor": hostile_text}, "kernel_log": [hostile_text]},
    }
    lines = [good, wrong_type, huge, half, future, hostile]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    result = kdo("plan", "--facts", "f.jsonl", "--format", "json")
    data = json.loads(result.stdout)
    assert result.returncode == 3
    assert {p["host"] for p in data["problems"]} == {"wrong-type", "huge", "future"}
    status = {h["host"]: h["status"] for h in data["hosts"]}
    assert status["good"] == "changes" and status["half"] == "refused" and len(status) == 3
    shown = kdo("explain", "evil\x1b[2J", "--facts", "f.jsonl")
    for text in (shown.stdout, kdo("plan", "--facts", "f.jsonl").stdout, kdo("detect", "--facts", "f.jsonl").stdout):
        assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert not Path("/tmp/kdo-owned").exists()


def test_6_a_host_that_has_moved_on_is_refused(tmp_path):
    """The stale check itself; the whole way is shown on a real guest in tests/lab."""
    from orchestrator.fleet.collect import Collected
    from orchestrator.fleet.runner import Whom
    from orchestrator.fleet.session import Run
    from orchestrator.knowledge.load import knowledge
    from orchestrator.planning.pipeline import Pipeline
    from orchestrator.planning.plan import seal
    from orchestrator.policy.load import default_path, load

    pipeline = Pipeline(load(default_path(), knowledge()), knowledge())
    plan = seal(pipeline.policy, [pipeline.plan(debian("web1"))])
    moved = kernel(debian("web1"), release="6.1.0-41-amd64")
    result = Run(pipeline, Whom(("x,",)), plan).apply(Collected([moved], []))
    assert [(o.host, o.state) for o in result.outcomes] == [("web1", "stale")]


def test_5_plans_that_were_changed_by_hand(kdo, tmp_path, facts):
    assert kdo("plan", "--facts", facts, "-o", "plan.json").returncode == 2
    path = tmp_path / "plan.json"
    assert path.stat().st_mode & 0o777 == 0o600
    plan = read_plan(path)
    assert plan.hash and plan.changes == sum(len(h.changes) for h in plan.hosts)
    write_plan(path, msgspec.structs.replace(plan, changes=0))
    result = kdo("apply", "plan.json", "-y")
    assert result.returncode == 5 and "changed after it was made" in result.stderr
    path.write_text("{}")
    assert kdo("apply", "plan.json", "-y").returncode == 5


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs an ssh client")
def test_130_interrupted(tmp_path):
    inventory = tmp_path / "slow.ini"
    inventory.write_text(
        "slow ansible_host=127.0.0.1 ansible_port=1 ansible_ssh_common_args='-o ProxyCommand=\"sleep 60\"'\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "detect", "-i", str(inventory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in stderr and "Traceback" not in stderr
