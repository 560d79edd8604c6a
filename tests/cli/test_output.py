# SPDX-License-Identifier: Apache-2.0
"""Forms of output: tables, JSON, JSON lines; what goes to stdout and what to stderr; start-up cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.documents.base import encode
from tests.builders import debian


def test_plan_shows_hosts_with_the_same_diff_once(kdo, facts):
    text = kdo("plan", "--facts", facts).stdout
    assert (
        "web1, web2: x86_64 kvm guest" in text and text.count("+KDUMP_CMDLINE_APPEND") == 2
    )  # db1 could not verify its handler
    assert "plan: 3 hosts, 3 to change; 9 changes, 3 reboots needed" in text.splitlines()[-1]
    assert "\x1b" not in text


def test_json_carries_the_version_and_can_be_replayed(kdo, facts, tmp_path):
    first = kdo("detect", "--facts", facts, "--format", "json")
    data = json.loads(first.stdout)
    assert data["format_version"] == "1.0" and [h["host"] for h in data["hosts"]] == ["db1", "web1", "web2"]
    assert {"arch", "hypervisor", "role", "confidential", "ambiguous", "evidence"} <= set(data["hosts"][0]["platform"])
    (tmp_path / "again.json").write_text(first.stdout)
    assert kdo("detect", "--facts", "again.json", "--format", "json").stdout == first.stdout
    lines = kdo("detect", "--facts", facts, "--format", "jsonl").stdout
    (tmp_path / "again.jsonl").write_text(lines)
    assert kdo("detect", "--facts", "again.jsonl", "--format", "json").stdout == first.stdout
    assert kdo("detect", "--facts", "-", "--format", "json", stdin=lines.encode()).stdout == first.stdout


def test_plan_is_the_same_bytes_every_time(kdo, facts):
    one, two = (kdo("plan", "--facts", facts, "--format", "json").stdout for _ in range(2))
    assert one == two
    jsonl = kdo("plan", "--facts", facts, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(x)["host"] for x in jsonl] == ["db1", "web1", "web2"]


def test_explain_shows_rules_clauses_layers_and_sources(kdo, facts):
    text = kdo("explain", "web1", "--facts", facts).stdout
    for part in (
        "✗ hyperv-arm64: does not match", "✓ kvm-x86: matches  [policies/default.yaml:", "✓ hypervisor kvm  (is: kvm)", "✓ X04: matches",
        "custom_handler: verified", "kdump_reset: on", "crash_kexec_post_notifiers: off", "source: Linux arch/x86/kernel/kvm.c",
        "crashkernel=384M-:128M (128M on this host)", "capture kernel gets: irqpoll nr_cpus=1 reset_devices",
    ):  # fmt: skip
        assert part in text, part
    data = json.loads(kdo("explain", "web1", "--facts", facts, "--format", "json").stdout)
    assert data["decision"]["strategy"] == "custom_handler" and len(data["decision"]["layers"]) == 3


def test_validate_names_each_check_with_evidence(kdo, tmp_path):
    (tmp_path / "one.json").write_bytes(encode(debian("web1")))
    text = kdo("validate", "--facts", "one.json").stdout
    assert (
        "fail    reservation" in text
        and "crashkernel=" in text
        and "pass    kexec-allowed" in text
        and "fix: kdo apply" in text
    )


def test_help_names_every_verb_and_the_exit_codes(kdo):
    text = kdo("--help").stdout
    for word in ("detect", "explain", "plan", "apply", "validate", "rollback", "policy", "doctor", "130 interrupted"):
        assert word in text
    for verb in ("detect", "explain", "plan", "apply", "validate", "rollback", "policy", "doctor"):
        assert kdo(verb, "--help").returncode == 0


@pytest.mark.parametrize(
    "module", ["ansible_runner", "ansible", "jsonschema", "rich", "yaml", "msgspec", "orchestrator.policy.load"]
)
def test_help_imports_nothing_heavy(module):
    code = (
        "import sys; from click.testing import CliRunner; from orchestrator.cli.main import cli; "
        f"r = CliRunner().invoke(cli, ['--help']); sys.exit(r.exit_code or {module!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_doctor_finds_this_machine_fit(kdo):
    result = kdo("doctor", "--format", "json")
    assert result.returncode == 0, result.stdout
    assert {c["what"] for c in json.loads(result.stdout)["checks"]} >= {"Python", "ansible-core", "ansible-runner"}


def test_no_color_and_pipes(kdo, facts):
    assert "\x1b" not in kdo("plan", "--facts", facts, env={"NO_COLOR": "1", "TERM": "xterm-256color"}).stdout
    shell = f"{sys.executable} -m orchestrator plan --facts {facts} | head -1"
    result = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True, cwd=Path(facts).parent)
    assert "Traceback" not in result.stderr and "BrokenPipe" not in result.stderr
