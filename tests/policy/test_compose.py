# SPDX-License-Identifier: Apache-2.0
"""Policies that build on others, overrides, limits, and `disabled` as a wanted state."""

import msgspec
import pytest

from orchestrator.documents.base import encode
from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.compose import merge, shipped
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import load, parse
from tests.builders import debian, platform

K = knowledge()
HEAD = "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n"


def write(folder, name, body):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + body)
    return path


def decide(policy, facts=None, **where):
    return Decider(policy, K).decide(facts or debian(), platform(**where))


BASE = """  settings: {dump: {level: 17}, target: {nfs: "s:/x"}, reservation: {extra: 64M}}
  rules:
    - {id: web, match: {groups: web}, strategy: [kdump_reset], settings: {sysctls: {kernel.panic: 5}}}
    - {id: db, match: {groups: db}, strategy: [kdump_reset]}
  default: {strategy: [kdump_reset]}
"""


def test_a_stronger_policy_is_tried_first_and_its_settings_win(tmp_path):
    write(tmp_path, "base.yaml", BASE)
    top = write(
        tmp_path,
        "top.yaml",
        """  extends: [./base.yaml]
  settings: {dump: {compression: zstd}, target: {path: /dumps}, reservation: {crashkernel: 300M}}
  rules:
    - {id: web-first, match: {groups: web, host: "web-1*"}, strategy: [kdump_reset]}
""",
    )
    policy = load(top, K)
    assert [r.id for r in policy.rules] == ["web-first", "web", "db", "default"]
    web = policy.rules[1]
    assert web.settings["dump"] == {"level": 17, "compression": "zstd"}
    assert web.settings["target"] == {"path": "/dumps"}  # another kind of target replaces the whole target
    assert web.settings["reservation"] == {"crashkernel": "300M"}  # given verbatim: nothing is added to it
    assert web.where.startswith(f"{tmp_path}/") and "base.yaml:7:7" in web.where
    assert [f.name.rsplit("/", 1)[1] for f in policy.files] == ["base.yaml", "top.yaml"]


def test_the_further_right_the_stronger_and_each_file_counts_once(tmp_path):
    write(tmp_path, "base.yaml", BASE)
    for name, level in (("one", 1), ("two", 2)):
        write(tmp_path, f"{name}.yaml", f"""  extends: [./base.yaml]
  settings: {{dump: {{level: {level}}}}}
  rules:
    - {{id: {name}, match: {{groups: {name}}}, strategy: [kdump_reset]}}
""")  # fmt: skip
    policy = load(write(tmp_path, "top.yaml", "  extends: [./one.yaml, ./two.yaml]\n"), K)
    assert [r.id for r in policy.rules] == ["two", "one", "web", "db", "default"]
    assert policy.rules[0].settings["dump"]["level"] == 2


def test_a_rule_is_replaced_in_its_place_and_only_when_said_so(tmp_path):
    write(tmp_path, "base.yaml", BASE)
    text = "  extends: [./base.yaml]\n  rules:\n    - {id: db, %smatch: {groups: db}, refuse: not here}\n"
    with pytest.raises(PolicyError) as e:
        load(write(tmp_path, "clash.yaml", text % ""), K)
    assert [p.id for p in e.value.problems] == ["P014"] and "replace: true" in e.value.problems[0].fix
    policy = load(write(tmp_path, "top.yaml", text % "replace: true, "), K)
    assert [(r.id, r.refuse) for r in policy.rules][:2] == [("web", ""), ("db", "not here")]
    with pytest.raises(PolicyError) as e:
        load(write(tmp_path, "none.yaml", text.replace("id: db", "id: dbx") % "replace: true, "), K)
    assert e.value.problems[0].id == "P017" and e.value.problems[0].where.endswith("none.yaml:7:7")


def test_guards_stay_first_unless_they_are_replaced_by_name(tmp_path):
    rule = "    - {id: mine, match: {arch: x86_64}, strategy: [kdump_reset]}\n"
    policy = load(write(tmp_path, "top.yaml", "  extends: [default]\n  rules:\n" + rule), K)
    assert [r.id for r in policy.rules][:3] == ["not-our-kernel", "contradictory", "mine"]
    assert decide(policy, ambiguous=True).outcome == "refuse"
    more = "    - {id: contradictory, replace: true, match: {ambiguous: true}, level: audit, strategy: [kdump_reset]}\n"
    policy = load(write(tmp_path, "bold.yaml", "  extends: [default]\n  rules:\n" + rule + more), K)
    assert [r.id for r in policy.rules][:3] == ["not-our-kernel", "mine", "contradictory"]


@pytest.mark.parametrize(
    ("body", "id", "text"),
    [
        ("  extends: [./top.yaml]\n", "P016", "builds on itself"),
        ("  extends: [./missing.yaml]\n", "P016", "cannot read"),
        ("  extends: [nosuch]\n", "P016", "no shipped policy 'nosuch'"),
        ("  extends: [./other.yaml]\n", "P003", "there is no default"),
    ],
)
def test_mistakes_in_extends(tmp_path, body, id, text):
    write(tmp_path, "other.yaml", "  extends: [./empty.yaml]\n")
    write(tmp_path, "empty.yaml", "  extends: [./none.yaml]\n")
    write(tmp_path, "none.yaml", "  rules: []\n  extends: []\n".replace("  extends: []\n", "  default: {refuse: x}\n"))
    (tmp_path / "none.yaml").write_text(HEAD + "  rules: []\n  extends: [./leaf.yaml]\n")
    (tmp_path / "leaf.yaml").write_text(HEAD + "  rules: []\n  extends: [./leaf2.yaml]\n")
    (tmp_path / "leaf2.yaml").write_text(HEAD + "  rules: []\n  default: {refuse: x}\n")
    top = write(tmp_path, "top.yaml", body)
    if id == "P003":
        top = write(tmp_path, "nodefault.yaml", "  rules: []\n")
        text = "lacks default or extends"
    with pytest.raises(PolicyError) as e:
        load(top, K)
    assert e.value.problems[0].id == id and text in e.value.problems[0].what, e.value.problems
    assert ":" in e.value.problems[0].where


def test_overrides_apply_on_top_of_the_rule_in_order(tmp_path):
    policy = load(
        write(
            tmp_path,
            "p.yaml",
            """  extends: [default]
  overrides:
    - {id: all-web, match: {groups: web}, settings: {dump: {level: 1}, sysctls: {kernel.panic: 5}}, level: audit}
    - {id: one, match: {host: "web-1"}, settings: {dump: {level: 2}}, level: enforce}
""",
        ),
        K,
    )
    facts = debian("web-1")
    facts = msgspec.structs.replace(facts, inventory=msgspec.structs.replace(facts.inventory, groups=["web"]))
    d = decide(policy, facts)
    assert (d.rule, d.overrides, d.settings.dump_level, d.outcome) == ("kvm-x86", ["all-web", "one"], 2, "act")
    assert d.settings.sysctls == {"kernel.panic": "5"}
    other = msgspec.structs.replace(facts, host="web-2")
    d = decide(policy, other)
    assert (d.overrides, d.settings.dump_level, d.outcome) == (["all-web"], 1, "audit")
    assert decide(policy).overrides == []
    traced = Decider(policy, K).explained(facts, platform())
    assert [(t.id, t.matched) for t in traced.trace if t.id in ("all-web", "one")] == [("all-web", True), ("one", True)]


def test_hosts_with_one_shape_share_a_decision_and_others_do_not(tmp_path):
    policy = parse(
        HEAD
        + """  rules:
    - {id: big, match: {memory: {min: 8G}, host: "db-*"}, strategy: [kdump_reset], settings: {dump: {level: 1}}}
  default: {strategy: [kdump_reset]}
""",
        "t",
        K,
    )
    decider = Decider(policy, K)
    facts = [debian(f"{kind}-{n}") for kind in ("db", "web") for n in range(50)]
    for gib in (4, 16):
        sized = [
            msgspec.structs.replace(f, memory=msgspec.structs.replace(f.memory, system_ram=gib << 30)) for f in facts
        ]
        for f in sized:
            d = decider.decide(f, platform())
            assert (d.rule == "big") == (gib == 16 and f.host.startswith("db-"))
            assert encode(d) == encode(Decider(policy, K).decide(f, platform()))
    assert len(decider._cache) == 4  # two kinds of names × two kinds of sizes, not two hundred hosts


LIMITS = [
    ("fadump: on", {}, "fadump-power"),
    ("target: {raw: /dev/sdb1}", {}, "debian-raw"),
    ('target: {filesystem: "UUID=aaaa-bbbb"}', {}, "debian-filesystem"),
    ("actions: {final: poweroff}", {}, "debian-final"),
    ("actions: {failure: shell}", {}, "debian-failure"),
    ("early: true", {}, "debian-early"),
    ("retention: {minimum_free: 1G}", {}, "debian-free"),
    ("dump: {collector: copy}", {}, "debian-collector"),
    ("capture: {ensure: [nr_cpus=4]}", {}, "one-cpu-kvm"),
    ("capture: {ensure: [nr_cpus=4]}", {"hypervisor": "hyperv"}, "one-cpu-hyperv"),
    (
        "retention: {keep: 3}",
        {"family": "redhat", "distribution": "rhel", "distribution_version": "9.4"},
        "redhat-keep",
    ),
    (
        "target: {raw: /dev/sdb1}",
        {"family": "suse", "distribution": "sles", "distribution_version": "15.6"},
        "suse-raw",
    ),
]


@pytest.mark.parametrize(("setting", "where", "limit"), LIMITS)
def test_a_wish_that_a_host_cannot_meet_is_a_refusal_with_its_source(setting, where, limit):
    policy = parse(
        HEAD + f"  settings: {{{setting}}}\n  default: {{strategy: [kdump_reset, custom_handler]}}\n", "t.yaml", K
    )
    d = decide(policy, **where)
    assert d.outcome == "refuse" and limit in [r.id for r in d.refusals]
    refusal = next(r for r in d.refusals if r.id == limit)
    assert refusal.why and refusal.fix and refusal.sources and refusal.where.startswith("t.yaml:")


@pytest.mark.parametrize(
    "setting",
    ["fadump: off", 'target: {nfs: "s:/x"}', 'target: {ssh: "a@b"}', "actions: {final: reboot, failure: halt}", "early: false",
     "retention: {keep: 3}", "dump: {collector: makedumpfile}", "capture: {ensure: [nr_cpus=1]}"],
)  # fmt: skip
def test_a_wish_that_can_be_met_is_met(setting):
    policy = parse(HEAD + f"  settings: {{{setting}}}\n  default: {{strategy: [kdump_reset]}}\n", "t.yaml", K)
    assert decide(policy).outcome == "act"


def test_the_refusal_names_the_override_that_asked(tmp_path):
    policy = parse(
        HEAD
        + """  overrides:
    - {id: raw, match: {arch: x86_64}, settings: {target: {raw: /dev/sdb1}}}
  default: {strategy: [kdump_reset]}
""",
        "t.yaml",
        K,
    )
    assert decide(policy).refusals[0].where == "t.yaml:6:7"


def test_disabled_wants_nothing_and_needs_no_kernel_support():
    policy = parse(HEAD + "  default: {disable: a baseline asks for it}\n", "t.yaml", K)
    d = decide(policy)
    assert (d.outcome, d.strategy, d.settings.enabled, d.refusals) == ("act", "", False, [])
    assert d.settings.boot_remove == ["crashkernel", "fadump"] and not d.settings.reservation.arguments
    bare = debian()
    bare = msgspec.structs.replace(bare, kexec=msgspec.structs.replace(bare.kexec, supported=False))
    assert decide(policy, bare).outcome == "act"  # a kernel without kexec has no kdump either
    assert decide(policy, role="container", hypervisor="kvm").outcome == "refuse"  # not our kernel: never touched


def test_merge_replaces_lists_and_joins_mappings():
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}, "d": 1}
    assert merge({"reservation": {"table": "x", "extra": "1M", "minimum": "2M"}}, {"reservation": {"crashkernel": "9M"}}) == {
        "reservation": {"minimum": "2M", "crashkernel": "9M"}
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_policy_is_sound(name):
    from orchestrator.policy.lint import lint

    policy = load(name, K)
    assert [p for p in lint(policy, K) if p.severity == "error"] == []
    first = policy.files[-1]
    text = shipped()[name].read_text()
    assert text.startswith("# yaml-language-server: $schema=") and first.marked.data["metadata"]["description"]


@pytest.mark.parametrize("argument", sorted(K.never))
def test_arguments_that_break_the_capture_kernel_are_errors_of_the_policy(argument):
    text = argument if "=" in argument or argument == "nosmp" else argument + "=1"
    with pytest.raises(PolicyError) as e:
        parse(HEAD + f"  default: {{strategy: [kdump_reset], settings: {{capture: {{ensure: [{text}]}}}}}}\n", "t", K)
    assert [p.id for p in e.value.problems] == ["P012"] and e.value.problems[0].why == K.never[argument]
