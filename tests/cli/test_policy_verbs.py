# SPDX-License-Identifier: Apache-2.0
"""`kdo policy test` and `kdo policy diff` as processes: output, exit codes, hostile input, and the guide's own example."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from orchestrator.documents.base import encode
from orchestrator.resources import data_path
from tests.builders import debian, file, kernel
from tests.planning.test_plan import armed

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: kdump-orchestrator/v1\nkind: PolicyTest\nspec:\n  policy: default\n  cases:\n"
GOOD = "    - {name: good, host: {arch: x86_64, hypervisor: kvm}, expect: {rule: kvm-x86}}\n"
BAD = "    - {name: bad, host: {arch: x86_64, hypervisor: kvm}, expect: {rule: default}}\n"
SKIP = "    - {name: later, skip: no such host yet, host: {arch: x86_64, hypervisor: kvm}, expect: {rule: default}}\n"
ROOM = """apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {name: room}
spec:
  extends: [default]
  overrides:
    - {id: room, match: {host: "web*"}, settings: {reservation: {minimum: 512M}}}
"""


@pytest.fixture
def cases(tmp_path):
    def write(text, name="cases.yaml", head=HEAD):
        (tmp_path / name).write_text(head + text)
        return name

    return write


@pytest.fixture
def room(tmp_path):
    (tmp_path / "room.yaml").write_text(ROOM)
    return "room.yaml"


# ---------------------------------------------------------------------- test


def test_the_shipped_tests_pass_and_cover_every_rule(kdo):
    result = kdo("policy", "test", "--require-coverage")
    assert result.returncode == 0 and result.stderr == "", result.stdout + result.stderr
    assert re.search(r"coverage: (\d+) of \1 rules and overrides", result.stdout.splitlines()[-1])
    assert "policies/tests/default.yaml: policy default: " in result.stdout


def test_a_failing_case_says_where_what_and_why(kdo, cases):
    result = kdo("policy", "test", cases(GOOD + BAD + SKIP))
    assert result.returncode == 2 and result.stderr == ""
    for text in (
        "FAIL  bad  [cases.yaml:7:7]", "cases.yaml:7:73: rule\n    expected: default\n    came:     kvm-x86",
        "✓ hypervisor kvm  (is: kvm)", "applied: kvm-x86 matches  [policies/default.yaml:",
        "expected: default matches too, but an earlier rule takes the host",
        "SKIP  later: no such host yet", "cases.yaml: policy default: 3 cases, 1 passed, 1 failed, 1 skipped",
        "policies/default.yaml:", "warning: no case of policy default reaches rule 'xen-x86'",
    ):  # fmt: skip
        assert text in result.stdout, text
    assert "PASS" not in result.stdout and "PASS  good" in kdo("policy", "test", "-v", "cases.yaml").stdout


def test_lack_of_coverage_fails_only_when_it_is_required(kdo, cases):
    name = cases(GOOD)
    assert kdo("policy", "test", name).returncode == 0
    result = kdo("policy", "test", name, "--require-coverage", "--junit", "out.xml")
    assert result.returncode == 2 and "error: no case of policy default reaches rule 'hyperv-root'" in result.stdout


def test_json_and_junit_are_the_same_every_time(kdo, cases, tmp_path):
    name = cases(GOOD + BAD + SKIP)
    first, second = (kdo("policy", "test", name, "--format", "json", "--junit", f"{n}.xml") for n in (1, 2))
    assert first.stdout == second.stdout and (tmp_path / "1.xml").read_bytes() == (tmp_path / "2.xml").read_bytes()
    data = json.loads(first.stdout)
    assert data["format_version"] == "1.0" and data["counts"] == {"pass": 1, "fail": 1, "skip": 1}
    assert [c["result"] for c in data["files"][0]["cases"]] == ["pass", "fail", "skip"]
    assert data["files"][0]["cases"][1]["differences"][0]["where"] == "cases.yaml:7:73"
    assert data["coverage"]["reached"] == 1 and len(data["coverage"]["missing"]) == data["coverage"]["of"] - 1
    (suite,) = ET.parse(tmp_path / "1.xml").getroot()
    assert (suite.get("name"), suite.get("failures")) == ("cases.yaml", "1")


def test_a_file_that_is_not_valid_does_not_stop_the_others(kdo, cases, tmp_path):
    wrong = cases(GOOD.replace("kvm-x86", "kvm-x68"), "wrong.yaml")
    result = kdo("policy", "test", wrong, cases(GOOD), "nowhere.yaml", "--junit", "out.xml")
    assert result.returncode == 5 and "cases.yaml: policy default: 1 cases, 1 passed" in result.stdout
    assert "wrong.yaml:6:74: error: there is no rule 'kvm-x68' [T001]" in result.stderr
    assert "fix: did you mean 'kvm-x86'" in result.stderr
    assert "nowhere.yaml: error: cannot read the policy test" in result.stderr
    assert ET.parse(tmp_path / "out.xml").getroot().get("errors") == "2"
    data = json.loads(kdo("policy", "test", wrong, "--format", "json").stdout)
    assert [p["id"] for p in data["problems"]] == ["T001"] and data["files"] == []


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\x00", b"\xff\xfe", b"[" * 100_000, b"- " * 50_000, b"a: &a [*a]", b"# " * (3 << 20), b"kind: Policy\n",
        HEAD.encode() + b"    - 7\n", HEAD.encode() + b"    - {name: [], host: 5, expect: 7, set: []}\n",
        HEAD.encode() + GOOD.replace("kvm}", 'kvm, memory: "99999999999999999999999T"}').encode(),
        HEAD.encode() + GOOD.replace("kvm-x86", "\x1b[31mred").encode(),
        HEAD.replace("default", "\"../../../../../../etc/passwd.yaml\"").encode() + GOOD.encode(),
        HEAD.encode() + b"    - {name: x, facts: /dev/zero, expect: {rule: default}}\n",
        HEAD.encode() + b"    - {name: x, facts: '-', expect: {rule: default}}\n",
    ],
    ids=range(15),
)  # fmt: skip
def test_hostile_test_files_end_as_messages(kdo, tmp_path, text):
    (tmp_path / "bad.yaml").write_bytes(text)
    result = kdo("policy", "test", "bad.yaml")
    assert result.returncode == 5 and "bad.yaml" in result.stderr and "\x1b" not in result.stderr, result.stderr


def test_names_in_a_test_file_cannot_steer_the_terminal(kdo, cases):
    result = kdo("policy", "test", cases(BAD.replace("bad", r'"\e]0;owned\a\x1b[2J"')))
    assert result.returncode == 2 and "\x1b" not in result.stdout and "\x07" not in result.stdout


def test_many_cases_are_quick(kdo, cases):
    many = "".join(GOOD.replace("good", f"g{n}") for n in range(2000))
    result = kdo("policy", "test", cases(many))
    assert result.returncode == 0 and "2000 cases, 2000 passed" in result.stdout


def test_the_results_file_that_cannot_be_written(kdo, cases):
    result = kdo("policy", "test", cases(GOOD), "--junit", "no/such/dir.xml")
    assert result.returncode == 5 and "cannot write the results" in result.stderr


# ---------------------------------------------------------------------- diff


def test_no_difference_is_exit_0(kdo, facts):
    result = kdo("policy", "diff", "default", "default", "--facts", facts)
    assert result.returncode == 0 and result.stdout.strip().endswith("3 hosts, nothing changes")


def test_hosts_are_grouped_by_what_changes(kdo, facts, room):
    result = kdo("policy", "diff", "default", room, "--facts", facts)
    assert result.returncode == 2
    assert result.stdout.splitlines() == [
        "1. crashkernel: 384M-:128M → 512M",
        "   overrides: + room",
        "   memory set aside: +384M per host",
        "   needs a reboot as before, but other steps",
        "   2 hosts: web1, web2",
        "",
        "policies/default.yaml → room.yaml: 3 hosts: 2 change in 1 way, 1 as before",
    ]


def test_what_it_needs_depends_on_the_host(kdo, tmp_path, room):
    """Armed hosts: one reboots for more memory, one gets another argument for the capture kernel, one a knob."""
    (tmp_path / "armed.jsonl").write_bytes(
        b"".join(encode(h) + b"\n" for h in (armed(), kernel(armed(host="db1"), release="6.1.0-40-amd64")))
    )
    data = json.loads(kdo("policy", "diff", "default", room, "--facts", "armed.jsonl", "--format", "json").stdout)
    (group,) = data["groups"]
    assert (group["needed"], group["needs"], group["memory"]) == ("none", "reboot", [384 << 20] * 2)
    text = kdo("policy", "diff", "default", room, "--facts", "armed.jsonl").stdout
    assert "needs a reboot (before: nothing on the host)" in text
    assert "1 need a reboot that they did not need before" in text
    for settings, needs in (("capture: {ensure: [debug]}", "reload"), ("sysctls: {kernel.panic_on_oops: 1}", "reload")):
        (tmp_path / "p.yaml").write_text(ROOM.replace("reservation: {minimum: 512M}", settings))
        (group,) = json.loads(
            kdo("policy", "diff", "default", "p.yaml", "--facts", "armed.jsonl", "--format", "json").stdout
        )["groups"]
        assert (group["needed"], group["needs"]) == ("none", needs), settings
        assert group["hosts"] == 1 and group["memory"] == []


def test_refusals_gained_and_lost(kdo, facts, tmp_path):
    (tmp_path / "no.yaml").write_text(
        "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: no}\nspec:\n  extends: [default]\n  rules:\n"
        "    - {id: stop, match: {host: db1}, refuse: not these}\n"
    )
    there = kdo("policy", "diff", "default", "no.yaml", "--facts", facts).stdout
    assert "1. refused: stop: not these\n   outcome: act → refuse\n   strategy: custom_handler → none\n" in there
    assert "needs nothing: refused (before: a reboot)" in there and "1 are refused now" in there
    back = kdo("policy", "diff", "no.yaml", "default", "--facts", facts).stdout
    assert "1. no longer refused: stop: not these\n   outcome: refuse → act\n" in back


def test_examples_are_the_first_names_whatever_the_order(kdo, tmp_path, room):
    names = [f"web{n:02d}" for n in range(20)]
    for name, order in (("a.jsonl", names), ("b.jsonl", names[::-1])):
        (tmp_path / name).write_bytes(b"".join(encode(debian(n)) + b"\n" for n in order))
    one, two = (kdo("policy", "diff", "default", room, "--facts", f).stdout for f in ("a.jsonl", "b.jsonl"))
    assert one == two and "20 hosts: web00, web01, web02, web03, web04, … and 15 more (--all)" in one
    assert ", ".join(names) in kdo("policy", "diff", "default", room, "--facts", "b.jsonl", "--all").stdout
    piped = kdo("policy", "diff", "default", room, "--facts", "-", stdin=(tmp_path / "b.jsonl").read_bytes())
    assert piped.stdout == one


def test_where_kdump_goes_the_capture_kernel_is_unloaded(kdo):
    result = kdo(
        "policy", "diff", "default", "hardened-disabled", "--facts", str(data_path("policies/examples/fleet.jsonl"))
    )
    assert result.returncode == 2, result.stderr
    assert "needs the capture kernel unloaded (before: " in result.stdout
    assert "loaded again" not in result.stdout


def test_json_of_a_diff(kdo, facts, room):
    first, second = (kdo("policy", "diff", "default", room, "--facts", facts, "--format", "json").stdout for _ in "ab")
    data = json.loads(first)
    assert first == second and data["kind"] == "PolicyDiff" and data["format_version"] == "1.0"
    assert (data["hosts"], data["unchanged"], data["problems"]) == (3, 1, [])
    assert data["groups"][0]["changes"][0] == {"what": "crashkernel", "old": "384M-:128M", "new": "512M"}
    assert data["old"]["file"] == "policies/default.yaml" and data["old"]["hash"] != data["new"]["hash"]


def test_another_version_of_the_knowledge(kdo, facts, tmp_path):
    old = tmp_path / "knowledge"
    shutil.copytree(data_path("policies/knowledge"), old)
    same = kdo("policy", "diff", "default", "--old-knowledge", "knowledge", "--facts", facts)
    assert same.returncode == 0 and "nothing changes" in same.stdout, same.stdout
    rows = (old / "strategies.yaml").read_text()
    handler = "custom_handler: {state: sufficient, handlers: [kvm_crash_shutdown], feature: kvm_crash_handler"
    assert rows.count(handler) == 5
    (old / "strategies.yaml").write_text(rows.replace(handler, handler.replace("sufficient", "unproven")))
    result = kdo("policy", "diff", "default", "default", "--old-knowledge", "knowledge", "--facts", facts)
    assert result.returncode == 2
    assert result.stdout.startswith("1. strategy: kdump_reset → custom_handler\n   needs a reboot as before"), (
        result.stdout
    )
    assert "3 hosts: db1, web1, web2" in result.stdout and "other knowledge" in result.stdout
    (old / "families.yaml").write_text(
        (old / "families.yaml").read_text().replace("/etc/default/kdump-tools", "/etc/kdump.conf")
    )
    shutil.copy(data_path("policies/knowledge/strategies.yaml"), old)
    result = kdo("policy", "diff", "default", "--old-knowledge", "knowledge", "--facts", facts)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("1. steps of the plan: file, boot") and lines[0].endswith("(other ones)"), result.stdout
    assert lines[1:3] == ["   needs a reboot as before, but other steps", "   3 hosts: db1, web1, web2"]


def test_other_tables_of_platforms(kdo, facts, tmp_path):
    old = tmp_path / "knowledge"
    shutil.copytree(data_path("policies/knowledge"), old)
    text = (old / "platforms.yaml").read_text()
    (old / "platforms.yaml").write_text(text.replace("debian: [debian, ubuntu, raspbian", "debian: [ubuntu, raspbian"))
    result = kdo("policy", "diff", "default", "--old-knowledge", "knowledge", "--facts", facts)
    assert result.returncode == 2 and "platform family: unknown → debian" in result.stdout
    assert "(before: nothing: kdo does not change this distribution yet)" in result.stdout


def test_hosts_whose_facts_cannot_be_read_are_told_and_the_others_go_on(kdo, tmp_path, room):
    lines = [encode(debian("web1")), b'{"host": "broken", "signals": 5}', encode(debian("web2"))]
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(lines))
    result = kdo("policy", "diff", "default", room, "--facts", "f.jsonl")
    assert result.returncode == 3 and "2 hosts: web1, web2" in result.stdout and "broken" in result.stderr


def test_a_host_with_an_odd_configuration_is_left_alone_and_does_not_stop_the_others(kdo, tmp_path, room, cases):
    odd = debian("web2")
    odd.files["/etc/default/kdump-tools"] = file('KDUMP_CMDLINE_APPEND="a;b"\n')
    (tmp_path / "f.jsonl").write_bytes(b"\n".join(encode(h) for h in (debian("web1"), odd, debian("web3"))))
    result = kdo("policy", "diff", "default", room, "--facts", "f.jsonl")
    assert result.returncode == 2 and "2 hosts: web1, web3" in result.stdout and "1 host: web2" in result.stdout
    result = kdo("plan", "--facts", "f.jsonl")
    assert result.returncode == 2 and "2 to change" in result.stdout and "1 not supported" in result.stdout
    assert "/etc/default/kdump-tools: 'a;b' cannot be used as a kernel argument" in result.stdout
    case = "    - {name: x, facts: f.jsonl#web2, expect: {rule: kvm-x86, plan: {status: changes}}}\n"
    result = kdo("policy", "test", cases(case))
    assert result.returncode == 2 and "came:     unsupported" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["default"], "there is nothing to compare with"),
        (["default", "nowhere.yaml"], "cannot read the policy"),
        (["default", "default", "--old-knowledge", "nowhere"], "the knowledge data cannot be read"),
        (["default", "default", "--old-knowledge", "broken"], "the knowledge data"),
        (["default", "default", "--old-knowledge", "half"], "the platform table"),
        (["default", "default", "--facts", "nowhere.json"], "cannot read the facts"),
    ],
)
def test_wrong_input_is_exit_5(kdo, facts, tmp_path, arguments, says):
    shutil.copytree(data_path("policies/knowledge"), tmp_path / "broken")
    (tmp_path / "broken/strategies.yaml").write_text("rows: 7\nguards: []\n")
    shutil.copytree(data_path("policies/knowledge"), tmp_path / "half")
    (tmp_path / "half/platforms.yaml").unlink()
    result = kdo("policy", "diff", *arguments, "--facts", facts)
    assert (result.returncode, result.stdout) == (5, "") and says in result.stderr and "fix:" in result.stderr
    assert kdo("policy", "diff", "default", "default").returncode == 5  # --facts is required


# ---------------------------------------------------------------------- the guide


def test_the_guides_example_runs(kdo, tmp_path, facts):
    """The files and the commands of docs/testing-policies.md, as they stand there."""
    text = (ROOT / "docs/testing-policies.md").read_text()
    files = dict(re.findall(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", text, re.S))
    assert {"policies/fleet.yaml", "policies/tests/fleet.yaml"} <= files.keys()
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert kdo("policy", "lint", "policies/fleet.yaml").returncode == 0
    result = kdo("policy", "test", "policies/tests/fleet.yaml", "--require-coverage", "--junit", "results.xml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert ET.parse(tmp_path / "results.xml").getroot().get("failures") == "0"
    shutil.copy(facts, tmp_path / "fleet.jsonl")
    assert kdo("policy", "diff", "default", "policies/fleet.yaml", "--facts", "fleet.jsonl").returncode == 2
