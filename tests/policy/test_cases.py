# SPDX-License-Identifier: Apache-2.0
"""Tests of policies: the shipped ones pass and reach everything; hosts as they are described; expectations one by one."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import msgspec
import pytest

from orchestrator.documents.base import encode, to_builtins
from orchestrator.documents.decision import Reservation, Settings
from orchestrator.documents.facts import Facts
from orchestrator.errors import InvalidInput
from orchestrator.fleet.collect import stream
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.cases import Runner
from orchestrator.planning.whatif import Comparison, World
from orchestrator.policy.case_host import change, describe
from orchestrator.policy.case_settings import flat
from orchestrator.policy.cases import load_cases, shipped_tests
from orchestrator.policy.compose import shipped
from orchestrator.policy.load import load, parse
from orchestrator.reports.junit import junit
from tests.builders import KDUMP_TOOLS, debian, file, kernel

K = knowledge()
HEAD = "apiVersion: kdump-orchestrator/v1\nkind: PolicyTest\nspec:\n  policy: default\n  cases:\n"
KVM = "host: {arch: x86_64, hypervisor: kvm, distribution: debian, distribution_version: '12', memory: 4G}"


def write(folder, cases, head=HEAD):
    path = folder / "cases.yaml"
    path.write_text(head + cases)
    return path


def run(folder, cases, head=HEAD):
    runner = Runner(K, stream)
    return runner.run(load_cases(write(folder, cases, head), K)), runner


def one(folder, expect, host=KVM, more=""):
    """The differences of a single case, as what → (expected, came)."""
    result, _ = run(folder, f"    - name: x\n      {host}\n{more}      expect: {expect}\n")
    (case,) = result.cases
    assert case.result == ("fail" if case.differences else "pass")
    return {d.what: (d.expected, d.came) for d in case.differences}


def problems(folder, cases, head=HEAD):
    with pytest.raises(InvalidInput) as e:
        run(folder, cases, head)
    return e.value.problems


# ---------------------------------------------------------------------- the shipped ones


def test_every_shipped_policy_has_tests_that_pass_and_reach_all_of_it():
    runner = Runner(K, stream)
    results = [runner.run(load_cases(path, K)) for path in shipped_tests()]
    assert {r.policy for r in results} == set(shipped())
    assert [(r.file, c.name, c.differences) for r in results for c in r.cases if c.result != "pass"] == []
    assert runner.uncovered() == [] and runner.counted()[0] >= 20
    for path in shipped_tests():
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=../../schemas/policy-test.schema.json"


# ---------------------------------------------------------------------- hosts


def test_a_described_host_has_sensible_defaults():
    subject = describe({"arch": "x86_64", "hypervisor": "kvm", "distribution": "ubuntu", "memory": "2G"}, K)
    p, f = subject.platform, subject.facts
    assert (p.role, p.family, p.boot_stack, p.confidential, p.ambiguous) == ("guest", "debian", "grub", "none", False)
    assert f.kexec.supported and f.probe.euid == 0 and f.memory.total == 2 << 30 and f.kernel.symbols is None
    assert describe({"arch": "aarch64", "hypervisor": "none"}, K).platform.role == "host"
    assert describe({"arch": "aarch64", "hypervisor": "none"}, K).platform.family == "unknown"


def test_every_word_of_a_description_reaches_the_match(tmp_path):
    """Each key of `host` decides a rule that asks for it, and only with that value."""
    words = {
        "role": ("dom0", {}), "variant": ("gen2", {}), "cloud": ("oci", {}), "product": ("Box 3", {}),
        "confidential": ("sev", {}), "confidential_host": ("tdx", {}), "family": ("suse", {}), "boot_stack": ("zipl", {}),
        "distribution": ("sles", {}), "distribution_version": ("15", {"match": {"min": "15"}}), "firmware": ("efi", {}),
        "kernel": ("5.4.1", {"match": {"below": "5.5"}}), "memory": ("3G", {"match": {"below": "4G"}}),
        "drivers": (["mlx5_core"], {}), "groups": (["db"], {}), "tags": (["old"], {}), "host": ("web7", {}),
        "paravisor": (True, {}), "ambiguous": (True, {}), "page_size": ("64k", {}),
        "cpus": (9, {"match": {"min": 9}}), "target_room": (0.5, {"match": {"below": 1}}), "target_encrypted": (True, {}),
    }  # fmt: skip
    for word, (value, more) in words.items():
        text = json.dumps({word: more.get("match", value)})
        policy = tmp_path / "p.yaml"
        policy.write_text(
            "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  rules:\n"
            f"    - {{id: hit, match: {text}, strategy: [kdump_reset]}}\n  default: {{strategy: [kdump_reset]}}\n"
        )
        host = json.dumps({"arch": "x86_64", "hypervisor": "kvm", word: value})
        cases = f"    - {{name: with, host: {host}, expect: {{rule: hit}}}}\n"
        cases += "    - {name: without, host: {arch: x86_64, hypervisor: kvm}, expect: {rule: default}}\n"
        result, _ = run(tmp_path, cases, HEAD.replace("policy: default", "policy: ./p.yaml"))
        assert [c.result for c in result.cases] == ["pass", "pass"], word


def test_a_forced_feature_answers_whatever_the_facts_say(tmp_path):
    host = "host: {arch: x86_64, hypervisor: kvm, symbols: [snp_kexec_finish], confidential: sev-snp, features: {snp_guest_kexec: %s}}"
    assert one(tmp_path, "{refusals: [X05b]}", host % "false") == {}
    assert "outcome" not in one(tmp_path, "{knowledge: [X05b, G3]}", host % "true")


def test_recorded_facts_are_classified_and_single_values_changed(tmp_path):
    hosts = [debian("a"), debian("b", files={**debian().files, "/etc/default/kdump-tools": file(KDUMP_TOOLS)})]
    (tmp_path / "fleet.jsonl").write_bytes(b"".join(encode(h) + b"\n" for h in hosts))
    (tmp_path / "one.json").write_bytes(encode(debian("a")))
    assert one(tmp_path, "{rule: kvm-x86, settings: {reserved: 128M}}", "facts: one.json") == {}
    changed = "      set: {signals.kernel_log: ['Hypervisor detected: Xen HVM'], signals.cpuid: [], signals.dmi: {}, kernel.symbols: [xen_hvm_crash_shutdown]}\n"
    assert one(tmp_path, "{rule: xen-x86, strategy: custom_handler}", "facts: fleet.jsonl#b", changed) == {}
    text = "{/etc/default/kdump-tools: {contains: ['# kdump-tools configuration', 'KDUMP_CMDLINE_APPEND=']}}"
    assert one(tmp_path, f"{{files: {text}}}", "facts: fleet.jsonl#b") == {}
    assert (
        "more than one host"
        in problems(tmp_path, "    - {name: x, facts: fleet.jsonl, expect: {rule: default}}\n")[0].what
    )
    (p,) = problems(tmp_path, "    - {name: x, facts: fleet.jsonl#c, expect: {rule: default}}\n")
    assert "'c'" in p.what and p.fix == "known: a, b" and p.where.endswith("cases.yaml:6:24")
    assert (
        "no such recorded" in problems(tmp_path, "    - {name: x, facts: no.json, expect: {rule: default}}\n")[0].what
    )


def test_set_finds_its_way_through_names_with_dots():
    facts = change(
        debian(),
        {
            "kexec.crash_size": 7,
            "kernel.sysctls.kernel.panic": "5",
            "files./etc/default/kdump-tools.text": "USE_KDUMP=0\n",
            "files./etc/new.conf": {"text": "x"},
            "files./etc/other.conf.text": "y",
            "packages.makedumpfile": "2",
            "targets.0.free": 1,
            "signals.device_tree.nodes": ["ibm,opal"],
        },
    )
    assert facts.kexec.crash_size == 7 and facts.kernel.sysctls["kernel.panic"] == "5"
    assert facts.files["/etc/default/kdump-tools"].text == "USE_KDUMP=0\n"
    assert facts.files["/etc/default/kdump-tools"].mode == "0644"
    assert facts.files["/etc/new.conf"].text == "x" and facts.files["/etc/other.conf"].text == "y"
    assert facts.packages["makedumpfile"] == "2" and facts.targets[0].free == 1
    assert change(Facts(), {"packages.kdump-tools": "1"}).packages == {"kdump-tools": "1"}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("kernel.relaese", "6.1", "did you mean 'release'"),
        ("kexec.crash_size", "big", "Expected `int | null`"),
        ("kernel.release.x", 1, "single value"),
        ("targets.4.free", 1, "the list is empty"),
        ("kernel.sysctls", 5, "Expected `object`"),
        ("nonsense", None, "known here"),
        (".", 1, "known here"),
    ],
)
def test_set_refuses_what_facts_do_not_have(tmp_path, path, value, says):
    case = f"    - {{name: x, {KVM}, set: {json.dumps({path: value})}, expect: {{rule: default}}}}\n"
    (p,) = problems(tmp_path, case)
    assert says in f"{p.why} {p.fix}" and path in p.what and "cases.yaml:6:" in p.where


# ---------------------------------------------------------------------- expectations


@pytest.mark.parametrize(
    ("expect", "what", "came"),
    [
        ("{rule: default}", "rule", "kvm-x86"),
        ("{outcome: refuse}", "outcome", "act"),
        ("{strategy: none}", "strategy", "custom_handler"),
        ("{layers: {kdump_reset: off}}", "layers.kdump_reset", "on"),
        ("{refusals: [X05b]}", "refusals", "none"),
        ("{knowledge: [X04, G3]}", "knowledge", "X04"),
        ("{settings: {enabled: false}}", "settings.enabled", "true"),
        ("{settings: {reserved: 256M}}", "settings.reserved", "128M"),
        ("{settings: {reserved: null}}", "settings.reserved", "128M"),
        ("{settings: {crashkernel: 1G}}", "settings.crashkernel", "384M-:128M"),
        ("{settings: {dump: {level: 31}}}", "settings.dump.level", "left alone"),
        ("{settings: {dump.level: 31}}", "settings.dump.level", "left alone"),
        ("{settings: {sysctls.kernel.panic: 3}}", "settings.sysctls.kernel.panic", "left alone"),
        ("{settings: {target: {nfs: 's:/x'}}}", "settings.target.nfs", "left alone"),
        ("{settings: {reboot: {allowed: never}}}", "settings.reboot.allowed", "always"),
        ("{boot: {ensure: [quiet]}}", "boot.ensure", "none"),
        ("{boot: {remove: []}}", "boot.remove", "crash_kexec_post_notifiers"),
        ("{files: {/etc/default/kdump-tools: {text: null}}}", "files./etc/default/kdump-tools.text", "a file"),
        ("{files: {/etc/nothing: {contains: [x]}}}", "files./etc/nothing.contains", "the file is not touched"),
        ("{files: {/etc/default/kdump-tools: {lacks: [nr_cpus]}}}", "files./etc/default/kdump-tools.lacks", "it is in it"),
        ("{plan: {status: none}}", "plan.status", "changes"),
        ("{plan: {action: knob}}", "plan.action", "reboot"),
        ("{plan: {changes: [knob]}}", "plan.changes", "boot, file, image"),
        ("{plan: {refusals: [reservation]}}", "plan.refusals", "none"),
    ],
)  # fmt: skip
def test_each_expectation_can_fail(tmp_path, expect, what, came):
    found = one(tmp_path, expect)
    assert list(found) == [what] and found[what][1] == came


def test_capture_arguments_by_key_and_by_value(tmp_path):
    assert one(tmp_path, "{settings: {capture: {has: [nr_cpus, nr_cpus=1], lacks: [nr_cpus=2, maxcpus]}}}") == {}
    found = one(tmp_path, "{settings: {capture: {has: [nr_cpus=2], lacks: [nr_cpus]}}}")
    assert found["settings.capture.has"][0] == "nr_cpus=2" and found["settings.capture.lacks"][0] == "no nr_cpus"


def test_the_whole_text_of_a_file(tmp_path):
    wanted = 'KDUMP_CMDLINE_APPEND="reset_devices'
    result, _ = run(
        tmp_path,
        f"    - name: x\n      {KVM}\n      expect: {{files: {{/etc/default/kdump-tools: {{text: 'USE_KDUMP=0'}}}}}}\n",
    )
    (d,) = result.cases[0].differences
    assert "-USE_KDUMP=0" in d.diff and any(line.startswith("+" + wanted) for line in d.diff)
    text = next(iter([line[1:] for line in d.diff if line.startswith("+USE")]))
    assert text == 'USE_KDUMP="1"'


def test_a_plan_of_a_host_that_is_as_wanted(tmp_path):
    """Described hosts have a whole plan: with everything there only the image and the file of ours are missing."""
    host = "host: {arch: x86_64, hypervisor: vmware, distribution: debian, distribution_version: '12', memory: 4G, crash_size: 128M, cmdline: 'crashkernel=384M-:128M'}"
    assert one(tmp_path, "{plan: {changes: [file, image, reload], action: rebuild}}", host) == {}


def test_a_failure_shows_the_clauses_of_both_rules(tmp_path):
    result, _ = run(
        tmp_path, "    - name: x\n      host: {arch: x86_64, hypervisor: tcg}\n      expect: {rule: kvm-x86}\n"
    )
    case = result.cases[0]
    assert [(r.id, r.what, r.matched) for r in case.rules] == [
        ("kvm-x86", "expected", False),
        ("default", "applied", True),
    ]
    assert [(c.field, c.actual, c.result) for c in case.rules[0].clauses] == [
        ("arch", "x86_64", True),
        ("hypervisor", "tcg", False),
    ]
    assert case.differences[0].where.endswith("cases.yaml:8:22") and case.where.endswith("cases.yaml:6:7")


def test_skipped_cases_are_not_even_read(tmp_path):
    result, runner = run(tmp_path, "    - {name: x, skip: 'not yet', facts: gone.json, expect: {rule: kvm-x86}}\n")
    assert (result.cases[0].result, result.cases[0].reason) == ("skip", "not yet")
    assert runner.counted()[0] == 0


# ---------------------------------------------------------------------- files that are not valid


@pytest.mark.parametrize(
    ("case", "where", "says"),
    [
        (f"{{name: x, {KVM}, expect: {{rule: kvm_x86}}}}", "6:", "did you mean 'kvm-x86'?"),
        (f"{{name: x, {KVM}, expect: {{overrides: [none-such]}}}}", "6:", "has none"),
        (f"{{name: x, {KVM}, expect: {{knowledge: [X4]}}}}", "6:", "'X04'"),
        (f"{{name: x, {KVM}, expect: {{refusals: [contradictry]}}}}", "6:", "did you mean 'contradictory'?"),
        (f"{{name: x, {KVM}, expect: {{stratgy: kdump_reset}}}}", "6:", "did you mean 'strategy'?"),
        (f"{{name: x, {KVM}, expect: {{settings: {{dump.levle: 3}}}}}}", "6:", "did you mean 'dump.level'?"),
        ("{name: x, host: {arch: x86_64, hypervisor: kvmm}, expect: {rule: default}}", "6:", "did you mean 'kvm'?"),
        ("{name: x, host: {arch: x86_64, hypervisor: kvm, features: {fadump: true}}, expect: {rule: default}}", "6:", "fadump_enabled"),
        ("{name: x, host: {arch: x86_64, hypervisor: kvm, kernel: 6.1}, expect: {rule: default}}", "6:", "quotes"),
        ("{name: x, expect: {rule: default}}", "6:", "neither"),
        (f"{{name: x, {KVM}, facts: x.json, expect: {{rule: default}}}}", "6:", "both"),
        (f"{{name: x, {KVM}}}", "6:", "lacks 'expect'"),
        (f"{{name: x, {KVM}, expect: {{}}}}", "6:", "expect"),
        ("just text", "6:", "not a mapping"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_place_and_suggestion(tmp_path, case, where, says):
    found = problems(tmp_path, f"    - {case}\n")
    assert any(says in f"{p.what} {p.fix}" and f"cases.yaml:{where}" in p.where for p in found), found


def test_names_of_cases_are_unique(tmp_path):
    case = f"    - {{name: x, {KVM}, expect: {{rule: kvm-x86}}}}\n"
    (p,) = problems(tmp_path, case * 2)
    assert "stands twice" in p.what and "cases.yaml:7:14" in p.where and "cases.yaml:6:14" in p.why


@pytest.mark.parametrize("policy", ["nosuch", "./nosuch.yaml", "/nonexistent/nosuch.yaml"])
def test_a_policy_that_is_not_there(tmp_path, policy):
    (p,) = problems(tmp_path, f"    - {{name: x, {KVM}, expect: {{rule: a}}}}\n", HEAD.replace("default", policy))
    assert "cases.yaml:4:11" in p.where and "nosuch" in f"{p.what} {p.why}"


def test_a_policy_that_is_not_valid_says_so_itself(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: p}\nspec: {defualt: 1}\n"
    )
    found = problems(
        tmp_path, f"    - {{name: x, {KVM}, expect: {{rule: a}}}}\n", HEAD.replace("policy: default", "policy: p.yaml")
    )
    assert any("p.yaml:4:8" in p.where for p in found)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "x", "a: [", "- - - -", "a: &x 1\nb: *x\n", "spec: {policy: 5, cases: 7}", HEAD + "    []", "[" * 5000, "\tx"],
)  # fmt: skip
def test_things_that_are_no_test_at_all(tmp_path, text):
    assert problems(tmp_path, "", text)


def test_a_file_full_of_mistakes_is_cut_short(tmp_path):
    found = problems(tmp_path, "".join(f"    - {{nam: x{i}}}\n" for i in range(2000)))
    assert len(found) == 51 and "more" in found[-1].what


def test_a_file_that_is_too_large_or_binary_is_refused(tmp_path):
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (5 << 20))
    with pytest.raises(InvalidInput, match="larger than"):
        load_cases(path, K)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="UTF-8"):
        load_cases(path, K)


# ---------------------------------------------------------------------- coverage and JUnit


def test_coverage_counts_what_the_policy_brings_itself(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  extends: [default]\n  rules:\n"
        "    - {id: one, match: {groups: a}, strategy: [kdump_reset]}\n    - {id: two, match: {groups: b}, strategy: [kdump_reset]}\n"
        "  overrides:\n    - {id: three, match: {tags: c}, level: audit}\n"
    )
    host = "host: {arch: x86_64, hypervisor: vmware, groups: [a], tags: [c]}"
    _, runner = run(
        tmp_path, f"    - {{name: x, {host}, expect: {{rule: one}}}}\n", HEAD.replace("default", "./p.yaml")
    )
    assert [(u.kind, u.id) for u in runner.uncovered()] == [("rule", "two")] and runner.counted() == (2, 3)
    assert runner.uncovered()[0].where.endswith("p.yaml:8:7")


def test_junit_is_well_formed_whatever_the_names(tmp_path):
    name = json.dumps('a <b> & "c" \x01\x1b[31m \ufffe ]]>')
    result, runner = run(
        tmp_path,
        f"    - {{name: {name}, {KVM}, expect: {{rule: default, strategy: none}}}}\n    - {{name: y, skip: '<no>', {KVM}, expect: {{rule: default}}}}\n    - {{name: z, {KVM}, expect: {{rule: kvm-x86}}}}\n",
    )
    data = junit([result], runner.uncovered(), [("bad.yaml", "it is <bad>\nwhy: so")])
    assert data == junit([result], runner.uncovered(), [("bad.yaml", "it is <bad>\nwhy: so")])
    root = ET.fromstring(data)
    first, covered, broken = root
    assert {k: first.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    assert [c.get("name") for c in first][1:] == ["y", "z"] and first[1].find("skipped").get("message") == "<no>"
    assert len(first[0]) == 1 and "strategy" in first[0][0].text and "time" not in first[0].attrib
    assert len(covered) == 9 and broken[0].find("error").get("message") == "it is <bad>"
    assert root.get("tests") == str(3 + 9 + 1) and root.get("failures") == "10" and root.get("errors") == "1"


# ---------------------------------------------------------------------- settings by name, and comparisons


def test_every_setting_has_a_name():
    """A field that is added to Settings shows up in comparisons by itself."""
    names = flat(Settings())
    assert {"dump.level", "retention.keep", "reboot.windows", "crashkernel", "target.nfs", "enabled"} <= names.keys()
    changed = {
        "enabled": False, "post_notifiers": True, "collector": "copy", "dump_level": 1, "dump_compression": "zstd", "final_action": "halt",
        "failure_action": "halt", "keep_dumps": 1, "minimum_free": 1, "fadump": "on", "early": True, "reboot_allowed": "never",
    }  # fmt: skip
    for field in Settings.__struct_fields__:
        old = getattr(Settings(), field)
        value = changed.get(field) or (
            ["x"] if isinstance(old, list) else {"kernel.panic": "1"} if isinstance(old, dict) else None
        )
        value = False if field == "enabled" else value
        if value is None:
            continue  # reservation and target
        new = flat(msgspec.structs.replace(Settings(), **{field: value}))
        assert new != names, field
    assert flat(Settings(reservation=Reservation(arguments=["1G"], wanted=5)))["crashkernel"] == ["1G"]


def test_identical_hosts_make_one_group_and_memory_stays_flat():
    text = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: p}\nspec:\n  extends: [default]\n  settings: {reservation: {minimum: 512M}}\n"
    comparison = Comparison(World(load("default", K), K), World(parse(text, "p.yaml", K), K))
    for n in range(500):
        comparison.add(debian(f"h{n:03d}"))
        comparison.add(kernel(debian(f"k{n:03d}"), release=f"6.1.{n}"))
    result = comparison.result()
    assert result.hosts == 1000 and result.unchanged == 0 and sum(g.hosts for g in result.groups) == 1000
    assert all(len(g.names) == 5 for g in result.groups) and result.groups[0].memory == [384 << 20, 384 << 20]
    json.dumps(to_builtins(result))
