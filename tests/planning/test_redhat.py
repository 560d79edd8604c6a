# SPDX-License-Identifier: Apache-2.0
"""Decision × facts → plan on the Red Hat family: the bytes of both files, one target, idempotence, what is refused."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insights.parsers.kdump import KDumpConf
from insights.tests import context_wrap

from orchestrator import hostside
from orchestrator.bootloaders import next_boot
from orchestrator.cmdline import key_of, split
from orchestrator.distros.kdump_conf import Conf, Unfit, read
from orchestrator.documents.decision import DumpTarget, Settings
from orchestrator.documents.facts import FileFact, Service, Target
from orchestrator.edits import text_after
from orchestrator.fleet.act import change_document
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import Planner
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load, parse
from tests.builders import RED_HATS, file, red_hat_file, redhat, redhat_platform

K = knowledge()
DATA = K.families["redhat"]
DEFAULT = load(default_path(), K)
CONF, SYSCONFIG = "/etc/kdump.conf", "/etc/sysconfig/kdump"
RECORDED = Path(__file__).parents[1] / "data" / "kdump-conf-as-kdumpctl-reads-it.jsonl"
RESULTS = Path(__file__).parents[1] / "results" / "parsers-redhat.jsonl"
DISK = Target(
    path="/mnt",
    exists=True,
    mount_point="/mnt",
    source="/dev/vdb1",
    fs_type="xfs",
    fs_uuid="1111-2222",
    fs_label="DUMPS",
)


def rules(rest):
    return parse(f"apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {{name: t}}\nspec:\n{rest}", "t.yaml", K)


def asking(**wishes):
    """The shipped strategy with these settings (JSON is YAML)."""
    return rules(f"  settings: {json.dumps(wishes)}\n  default: {{strategy: [custom_handler, kdump_reset]}}\n")


def plan(facts, name="el9", policy=DEFAULT, **where):
    platform = redhat_platform(name, **where)
    return Planner(K).plan_host(facts, platform, Decider(policy, K).decide(facts, platform))


def with_file(facts, path, text, **more):
    return msgspec.structs.replace(facts, files={**facts.files, path: file(text, **more)})


def after(facts, p, name="el9", policy=DEFAULT):
    """The facts once the plan is done and the host has booted with it."""
    family, platform = Planner(K).families["redhat"], redhat_platform(name)
    boot = boot_of(facts, platform)
    desired = family.desired(Decider(policy, K).decide(facts, platform), facts, platform, boot)
    for wanted in desired.files:
        text = text_after(wanted, facts.files.get(wanted.path))
        if text is not None:
            facts = with_file(facts, wanted.path, text)
    for change in p.changes:
        step = change.step
        if step["op"] == "arguments":
            text = hostside.edited(
                facts.files[step["path"]].text, step["path"], "arguments", step["ensure"], step["remove"]
            )
            facts = with_file(facts, step["path"], text)
    block = facts.files.get("/boot/grub2/grubenv")
    if block is not None:
        env = dict(row.split("=", 1) for row in block.text.split("\n") if "=" in row)
        grub = msgspec.structs.replace(facts.boot.grub, env=env)
        facts = msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=grub))
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=True, crash_size=256 << 20)
    arguments = " ".join(boot_of(facts, platform).arguments)
    kernel = msgspec.structs.replace(facts.kernel, cmdline=arguments)
    return msgspec.structs.replace(facts, kexec=kexec, kernel=kernel)


def boot_of(facts, platform):
    return next_boot(platform.boot_stack, facts)


def conf_after(p, facts):
    """kdump.conf's text after a plan; the host's own editing code makes it."""
    for change in p.changes:
        if change.step.get("path") == CONF:
            return hostside.edited(
                facts.files[CONF].text, CONF, "settings", [tuple(x) for x in change.step["settings"]], ()
            )
    return facts.files[CONF].text


def kinds(p):
    return [c.kind for c in p.changes]


# --- Stock hosts


@pytest.mark.parametrize("name", RED_HATS)
def test_a_stock_host_needs_its_reservation_and_little_else(name):
    p = plan(redhat(name), name)
    assert (p.status, p.action, p.family) == ("changes", "reboot", "redhat"), p.refusals
    paths = [c.step.get("path") for c in p.changes]
    assert CONF not in paths  # nothing is asked of it
    # kdump_reset is the stock command line already; what the strategy adds to it is one argument that is newer.
    assert (SYSCONFIG in paths) == (name in ("el8", "el9"))
    for change in p.changes:
        if change.step.get("path") == SYSCONFIG:
            ((key, value),) = change.step["assignments"]
            stock = hostside.read_assignments(red_hat_file(f"{name}.sysconfig"))[key][0]
            assert (key, value) == ("KDUMP_COMMANDLINE_APPEND", f"{stock} pcie_ports=compat")


@pytest.mark.parametrize("name", RED_HATS)
def test_nothing_to_change_the_second_time(name):
    facts = redhat(name)
    done = after(facts, plan(facts, name), name)
    p = plan(done, name)
    assert (p.status, p.changes, p.reboot) == ("none", [], False), [(c.what, c.why) for c in p.changes]


@pytest.mark.parametrize("name", ["el8", "el9", "fedora"])
def test_nothing_to_change_after_everything_was_asked_for(name):
    policy = asking(target={"nfs": "10.0.0.1:/srv"}, dump={"level": 17, "compression": "snappy"}, actions={"failure": "halt", "final": "poweroff"},
                    reservation={"crashkernel": "256M"}, capture={"ensure": ["foo=1"], "remove": ["mce"]})  # fmt: skip
    facts = redhat(name)
    first = plan(facts, name, policy)
    assert first.status == "changes" and "image" in kinds(first)
    p = plan(after(facts, first, name, policy), name, policy)
    assert (p.status, p.changes) == ("none", []), [(c.what, c.why, c.diff) for c in p.changes]


def test_the_pipeline_makes_a_plan_for_such_a_host():
    for name in RED_HATS:
        p = Pipeline(DEFAULT, K).plan(redhat(name))
        assert (p.status, p.family) == ("changes", "redhat"), (name, p.refusals)


def test_a_directory_that_the_hypervisor_shares():
    own = redhat()
    changed = read(conf_after(plan(own, policy=asking(target={"virtiofs": "dumps", "path": "/crash"})), own))
    assert changed["virtiofs"] == "dumps" and changed["path"] == "/crash"
    again = with_file(own, CONF, "virtiofs dumps\npath /crash\n")
    assert read(conf_after(plan(again, policy=asking(target={"nfs": "10.0.0.1:/srv"})), again)).get("virtiofs") is None


def test_a_missing_package_is_installed_enabled_and_edited():
    facts = redhat("fedora", packages={}, services={})
    facts = msgspec.structs.replace(facts, files={k: v for k, v in facts.files.items() if "kdump" not in k})
    policy = asking(target={"nfs": "10.0.0.1:/srv"}, reservation={"crashkernel": "300M"})
    p = plan(facts, "fedora", policy)
    assert p.changes[0].step == {"op": "package-install", "names": ["kdump-utils"]}
    steps = {c.step.get("path"): c.step for c in p.changes}
    assert steps[CONF]["before_sha256"] == "from-package"
    assert steps[CONF]["settings"] == [["nfs", "10.0.0.1:/srv"], ["auto_reset_crashkernel", "no"]]
    assert SYSCONFIG not in steps  # what the package brings is right already
    assert {"image", "service"} <= set(kinds(p))
    old = msgspec.structs.replace(redhat("el9"), packages={})
    assert plan(old, "el9").changes[0].step["names"] == ["kexec-tools"]


def test_every_step_is_one_that_the_host_side_accepts():
    doc = hostside.load("kdo_txn_doc")
    for name in RED_HATS:
        for policy in (DEFAULT, *POLICIES.values()):
            for facts in (redhat(name, targets=[DISK]), redhat(name, packages={}, services={}, targets=[DISK])):
                p = plan(facts, name, policy)
                if p.changes:
                    doc.validate(json.loads(base64.b64decode(change_document(p, "0" * 64))))


# --- /etc/sysconfig/kdump


def sysconfig(facts, name="el9", policy=DEFAULT):
    p = plan(facts, name, policy)
    found = [dict(c.step["assignments"]) for c in p.changes if c.step.get("path") == SYSCONFIG]
    return found[0] if found else {}


def test_arguments_are_ensured_once_and_removed():
    policy = asking(capture={"ensure": ["panic=5", "foo=1"], "remove": ["mce", "cma"]})
    words = split(sysconfig(redhat("fedora"), "fedora", policy)["KDUMP_COMMANDLINE_APPEND"])
    keys = [key_of(w) for w in words]
    assert (
        words.count("panic=5") == 1
        and keys.count("nr_cpus") == 1
        and "foo=1" in words
        and not {"mce", "cma"} & set(keys)
    )
    assert "initramfs_options=size=90%" in words  # the rest of the stock line stays


def test_the_administrators_own_line_is_the_base():
    text = red_hat_file("el9.sysconfig").replace("panic=10", "panic=10 rd.kdumploglvl=3 nr_cpus=4")
    words = split(sysconfig(with_file(redhat(), SYSCONFIG, text))["KDUMP_COMMANDLINE_APPEND"])
    assert "rd.kdumploglvl=3" in words and [w for w in words if w.startswith("nr_cpus")] == ["nr_cpus=1"]


def test_maxcpus_gives_way_to_nr_cpus():
    text = red_hat_file("el8.sysconfig").replace("nr_cpus=1", "maxcpus=1")
    words = split(sysconfig(with_file(redhat("el8"), SYSCONFIG, text), "el8")["KDUMP_COMMANDLINE_APPEND"])
    assert "maxcpus=1" not in words and words.count("nr_cpus=1") == 1


def test_what_the_first_kernel_has_under_such_a_key_is_not_inherited():
    facts = redhat("fedora", arguments="quiet nr_cpus=8 transparent_hugepage=always foo")
    removed = sysconfig(facts, "fedora")["KDUMP_COMMANDLINE_REMOVE"].split()
    stock = hostside.read_assignments(red_hat_file("fedora.sysconfig"))["KDUMP_COMMANDLINE_REMOVE"][0].split()
    assert removed == [*stock, "nr_cpus", "transparent_hugepage"]
    done = after(facts, plan(facts, "fedora"), "fedora")
    family, platform = Planner(K).families["redhat"], redhat_platform("fedora")
    configured = family.capture(done, platform, boot_of(done, platform)).configured_arguments
    assert configured.count("nr_cpus=1") == 1 and "nr_cpus=8" not in configured and "foo" in configured
    assert not [w for w in configured if w.startswith("crashkernel")] and "quiet" not in configured


def test_an_unset_variable_stands_for_the_stock_one():
    text = "\n".join(r for r in red_hat_file("el9.sysconfig").split("\n") if not r.startswith("KDUMP_COMMANDLINE_"))
    words = split(sysconfig(with_file(redhat(), SYSCONFIG, text))["KDUMP_COMMANDLINE_APPEND"])
    assert words[:2] == ["irqpoll", "nr_cpus=1"] and "hugetlb_cma=0" in words


@pytest.mark.parametrize("value", ['"$(cat /x)"', "'a b' `c`", '"a $X"'])
def test_what_a_shell_computes_is_not_changed(value):
    text = red_hat_file("el9.sysconfig") + f"KDUMP_COMMANDLINE_APPEND={value}\n"
    p = plan(with_file(redhat(), SYSCONFIG, text))
    assert p.status in ("unsupported", "refused") and not p.changes


WORDS = st.lists(st.from_regex(r"[a-z_]{1,8}(=[a-z0-9.,:%/-]{0,6})?", fullmatch=True), max_size=6)


@settings(max_examples=60, deadline=None)
@given(WORDS, WORDS, st.sampled_from(list(RED_HATS)))
def test_a_shell_and_systemd_read_what_was_written(added, removed, name):
    text = hostside.assign(
        red_hat_file(f"{name}.sysconfig"),
        [("KDUMP_COMMANDLINE_APPEND", " ".join(added)), ("KDUMP_COMMANDLINE_REMOVE", " ".join(removed))],
    )
    script = f'{text}\nprintf "%s|%s|%s" "$KDUMP_COMMANDLINE_APPEND" "$KDUMP_COMMANDLINE_REMOVE" "$KEXEC_ARGS"'
    got = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert got.split("|") == [" ".join(added), " ".join(removed), "-s"]
    # EnvironmentFile=: a line is NAME=value, quotes as in a shell, comments begin a line.
    rows = [row.partition("=") for row in text.split("\n") if row.strip() and row[0] not in "#;"]
    found = {name: "".join(shlex.split(value)) for name, _, value in rows}
    assert found["KDUMP_COMMANDLINE_APPEND"] == " ".join(added) and found["KEXEC_ARGS"] == "-s"
    again = {k: v for k, (v, _line) in hostside.read_assignments(text).items()}
    assert again["KDUMP_COMMANDLINE_REMOVE"] == " ".join(removed)


# --- /etc/kdump.conf

POLICIES = {
    "path": asking(target={"path": "/srv/crash"}),
    "uuid": asking(target={"filesystem": "UUID=1111-2222", "path": "/dumps"}),
    "label": asking(target={"filesystem": "LABEL=DUMPS"}),
    "device": asking(target={"filesystem": "/dev/vdb1"}),
    "raw": asking(target={"raw": "/dev/vdb2"}),
    "nfs": asking(target={"nfs": "10.0.0.1:/srv", "path": "/kdump"}),
    "nfs6": asking(target={"nfs": "[2001:db8::1]:/srv"}),
    "ssh": asking(target={"ssh": "kdump@dumps.example", "path": "/in", "key": "/root/.ssh/kdump"}),
    "ssh-copy": asking(target={"ssh": "kdump@dumps.example"}, dump={"collector": "copy"}),
    "copy": asking(dump={"collector": "copy"}),
    "level": asking(dump={"level": 1}),
    "zlib": asking(dump={"compression": "zlib", "level": 31}),
    "raw-snappy": asking(target={"raw": "/dev/vdb2"}, dump={"compression": "snappy", "level": 3}),
    "failure": asking(actions={"failure": "dump_to_rootfs"}),
    "final": asking(actions={"final": "poweroff", "failure": "shell"}),
    "fixed": asking(reservation={"crashkernel": "512M"}),
}
EARLIER = {
    "nothing": "",
    "xfs": "xfs UUID=aaaa-bbbb\n",
    "raw": "raw /dev/sdz1\n",
    "ssh": "ssh a@b.example\nsshkey /root/.ssh/other\n",
    "nfs": "nfs 192.0.2.1:/x   # the old filer\n",
    "actions": "failure_action shell\nfinal_action halt\n",
}


def earlier(name, key):
    """A stock file in which an administrator has set something."""
    text = red_hat_file(f"{name}.kdump.conf")
    if key in ("raw", "ssh"):
        text = re.sub(r"(?m)^core_collector makedumpfile", "core_collector makedumpfile -F", text)
    return text + EARLIER[key]


def generated():
    """Name → every kdump.conf that the policies above make of the files above."""
    out = {}
    for name in ("el8", "el9", "s390x"):
        for key in EARLIER if name == "el9" else ("nothing",):
            facts = with_file(redhat(name, targets=[DISK]), CONF, earlier(name, key))
            for wish, policy in POLICIES.items():
                p = plan(facts, name, policy)
                if p.status == "changes":
                    out[f"{name}, {key}, then {wish}"] = conf_after(p, facts)
    return out


GENERATED = generated()


def changed_lines(p):
    (change,) = [c for c in p.changes if c.step.get("path") == CONF]
    return [row for row in change.diff.split("\n")[2:] if row.startswith(("+", "-"))]


def test_the_bytes_of_an_edited_file():
    assert changed_lines(plan(redhat("el9", targets=[DISK]), policy=POLICIES["uuid"])) == [
        "-path /var/crash",
        "+path /dumps",
        "+xfs UUID=1111-2222",
    ]
    ssh = plan(redhat("el9"), policy=POLICIES["ssh"])
    assert changed_lines(ssh) == [
        "+ssh kdump@dumps.example",
        "+sshkey /root/.ssh/kdump",
        "-path /var/crash",
        "-core_collector makedumpfile -l --message-level 7 -d 31",
        "+path /in",
        "+core_collector makedumpfile -F -l --message-level 7 -d 31",
    ]
    assert "image" in kinds(ssh)
    back = with_file(redhat("el9"), CONF, conf_after(ssh, redhat("el9")))
    assert changed_lines(plan(back, policy=POLICIES["path"])) == [
        "-ssh kdump@dumps.example",
        "+#ssh kdump@dumps.example",
        "-path /in",
        "-core_collector makedumpfile -F -l --message-level 7 -d 31",
        "+path /srv/crash",
        "+core_collector makedumpfile -l --message-level 7 -d 31",
    ]


def test_there_is_never_a_second_target():
    keys = {*DATA["filesystems"], "raw", "nfs", "ssh"}
    assert len(GENERATED) > 100
    for name, text in GENERATED.items():
        found = read(text)
        assert len(keys & set(found)) <= 1, name
        words = found["core_collector"].split()
        stream = bool({"raw", "ssh"} & set(found))
        assert words[0] != "makedumpfile" or (words.count("-F") == stream and words.count("-d") == 1), (name, words)
        assert "then path" not in name or not keys & set(found)


def test_what_was_not_asked_for_stays():
    facts = with_file(redhat(), CONF, earlier("el9", "nfs") + "fence_kdump_args -p 7410\n")
    text = conf_after(plan(facts, policy=POLICIES["final"]), facts)
    assert "nfs 192.0.2.1:/x   # the old filer\n" in text and "fence_kdump_args -p 7410" in text
    own = with_file(redhat(), CONF, "core_collector makedumpfile  -d 31 --message-level 1 -l\nraw /dev/sdz1\n")
    assert read(conf_after(plan(own, policy=POLICIES["nfs"]), own))["core_collector"].count("-F") == 0


def test_the_collector_of_an_administrator_follows_the_target():
    def after_policy(collector, wish):
        facts = with_file(redhat(targets=[DISK]), CONF, f"core_collector {collector}\n")
        p = plan(facts, policy=POLICIES[wish])
        return read(conf_after(p, facts)).get("core_collector") if p.status == "changes" else p.refusals[0].what

    assert after_policy("cp", "ssh") == "scp" and after_policy("scp", "nfs") == "cp"
    assert after_policy("cp --sparse=always", "path") == "cp"
    assert after_policy("/usr/local/bin/mine -x", "final") == "/usr/local/bin/mine -x"
    assert after_policy("makedumpfile -d17 -c", "level") == "makedumpfile -d 1 -c"
    assert after_policy("makedumpfile -E -d 31", "zlib") == "makedumpfile -c -d 31"
    assert "core_collector" in after_policy("makedumpfile -d 31 --split x y", "ssh")  # the host would not write that


def test_both_names_of_the_failure_action():
    def pairs(name, text):
        p = plan(with_file(redhat(name), CONF, text), name, POLICIES["failure"])
        return next(c.step["settings"] for c in p.changes if c.step.get("path") == CONF)

    assert pairs("el8", "path /x\n") == [["default", "dump_to_rootfs"]]
    assert pairs("el8", "failure_action halt\n") == [["failure_action", "dump_to_rootfs"]]
    assert pairs("el9", "default halt\n") == [["default", None], ["failure_action", "dump_to_rootfs"]]


def test_only_versions_that_know_it_get_auto_reset():
    assert not [c for c in plan(redhat("el8"), "el8", POLICIES["fixed"]).changes if c.step.get("path") == CONF]
    assert read(GENERATED["el9, nothing, then fixed"])["auto_reset_crashkernel"] == "no"


@pytest.mark.parametrize(
    ("text", "wish", "why"),
    [
        ("path /a\npath /b\n", "path", "stands twice"),
        ('dracut_args --mount "/dev/x /mnt xfs"\n', "nfs", "--mount"),
        ("core_collector\n", "nfs", "no value"),
    ],
)
def test_a_file_that_cannot_be_edited_is_left_alone(text, wish, why):
    p = plan(with_file(redhat(), CONF, text), policy=POLICIES[wish])
    assert (
        p.status in ("unsupported", "refused")
        and not p.changes
        and why in json.dumps([r.what + r.why for r in p.refusals])
    )


def test_a_filesystem_that_was_not_seen_is_not_guessed():
    p = plan(redhat(), policy=POLICIES["uuid"])
    assert p.status == "unsupported" and "was not seen" in p.refusals[0].what
    zfs = msgspec.structs.replace(DISK, fs_type="zfs_member")
    assert "no such target" in plan(redhat(targets=[zfs]), policy=POLICIES["uuid"]).refusals[0].what
    named = with_file(redhat(), CONF, "ext4 UUID=1111-2222\n")
    assert plan(named, policy=POLICIES["uuid"]).status == "changes"
    assert plan(redhat(), policy=asking(target={"raw": "/dev/x"}, dump={"collector": "copy"})).status == "unsupported"


LINE = st.one_of(
    st.sampled_from(
        [
            "# a comment",
            "",
            "  # indented",
            "#nfs x:/y",
            "path /var/crash",
            "xfs /dev/vda1 # why",
            "final_action  halt",
            "ssh a@b",
        ]
    ),
    st.from_regex(r"[a-z_]{1,10} [A-Za-z0-9 /=._-]{1,20}", fullmatch=True),
)
PAIR = st.tuples(st.sampled_from(["path", "nfs", "xfs", "ssh", "raw", "core_collector"]), st.one_of(st.none(), st.from_regex(r"[a-z/]{1,9}( [a-z]{1,3})?", fullmatch=True)))  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, max_size=8), st.lists(PAIR, max_size=4, unique_by=lambda p: p[0]))
def test_parse_edit_parse(lines, pairs):
    conf = hostside.load("kdo_conf")
    text = "\n".join(lines) + "\n"
    try:
        before = conf.settings(text)
    except conf.ConfError:
        return
    after_text = conf.edit(text, pairs)
    found = {k: v for k, (v, _line) in conf.settings(after_text).items()}
    expected = {k: v for k, (v, _line) in before.items()}
    for key, value in pairs:
        if value is None:
            expected.pop(key, None)
        else:
            expected[key] = value
    assert found == expected and conf.edit(after_text, pairs) == after_text


PLACE = {"path": "", "nfs": "a:/b", "raw": "/dev/a", "ssh": "a@b", "filesystem": "LABEL=A"}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(list(EARLIER)),
    st.sampled_from(list(PLACE)),
    st.sampled_from(["", "zlib", "lzo", "snappy", "zstd"]),
    st.sampled_from([None, 0, 31]),
)
def test_a_wish_that_is_met_is_not_wished_again(key, kind, compression, level):
    conf = hostside.load("kdo_conf")
    wish = Settings(
        target=DumpTarget(kind=kind, place=PLACE[kind], path="/p" if kind != "raw" else ""),
        dump_level=level,
        dump_compression=compression,
    )
    text = earlier("el9", key)
    once = conf.edit(text, Conf(read(text), DATA, "x86_64").wanted(wish, "xfs"))
    assert Conf(read(once), DATA, "x86_64").wanted(wish, "xfs") == []


# --- What others make of the files


def test_insights_reads_what_we_write():
    for name, text in GENERATED.items():
        parsed = KDumpConf(context_wrap(text))
        ours = read(text)
        assert {k: v for k, v in parsed.data.items() if k in ours} == ours, name
        assert parsed.using_local_disk == (not {"ssh", "nfs"} & set(ours)), name
        assert (parsed.target[0] if parsed.target else "") in ("", *ours), name


def test_kdumpctl_answers_as_we_expect():
    """Recorded: kdumpctl's parse_config and mkdumprd's check of the collector (kdump-utils 1.0.61) on each file."""
    problem = hostside.load("kdo_txn_redhat").conf_problem
    rows = [json.loads(row) for row in RECORDED.read_text().splitlines()]
    for row in rows:
        assert (problem(row["text"]) is None) == row["accepted"], (row["name"], problem(row["text"]))
    recorded = {row["text"]: row["accepted"] for row in rows}
    assert all(recorded.get(text) for text in GENERATED.values()), "they must be asked of kdumpctl again"
    assert len([row for row in rows if not row["accepted"]]) >= 20
    results = [json.loads(row) for row in RESULTS.read_text().splitlines()]
    assert {(r["files"], r["accepted"]) for r in results} == {(len(GENERATED), len(GENERATED))}


# --- Notes, disabling, the present state


def test_auto_is_replaced_and_explained():
    p = plan(redhat("el8", arguments="quiet crashkernel=auto"), "el8")
    assert p.status == "changes" and any("crashkernel=auto" in note for note in p.notes)
    assert "wanted is crashkernel=1G-4G:192M,4G-64G:256M,64G-:512M" in p.changes[-1].why


@pytest.mark.parametrize(
    "skipped", [Service(enabled="enabled", condition="no"), Service(enabled="enabled", result="exec-condition")]
)
def test_a_skipped_unit_is_no_healthy_unit(skipped):
    assert any("skipped" in note for note in plan(redhat(services={"kdump": skipped})).notes)
    assert not plan(redhat()).notes


def test_disabling_keeps_a_new_kernel_from_bringing_it_back():
    policy = rules("  default: {disable: no kdump here}\n")
    facts = redhat(arguments="quiet crashkernel=256M")
    facts = msgspec.structs.replace(
        facts, kexec=msgspec.structs.replace(facts.kexec, crash_loaded=True, crash_size=256 << 20)
    )
    p = plan(facts, policy=policy)
    assert p.changes[0].step["settings"] == [["auto_reset_crashkernel", "no"]]
    assert {"op": "service-disable", "unit": "kdump.service"} in [c.step for c in p.changes]
    assert p.changes[-1].step == {"op": "action", "name": "kdump-unload"} and "image" not in kinds(p)
    old = plan(redhat("el8", arguments="quiet crashkernel=auto"), "el8", policy)
    assert CONF not in [c.step.get("path") for c in old.changes]


def capture(facts, name="el9"):
    platform = redhat_platform(name)
    return Planner(K).families["redhat"].capture(facts, platform, boot_of(facts, platform))


def test_the_present_state():
    facts = with_file(redhat(), CONF, "nfs 192.0.2.1:/x\npath /d\n")
    seen = capture(facts)
    release = RED_HATS["el9"][2]
    assert (seen.loaded_arguments, seen.release, seen.image) == (None, release, f"/boot/initramfs-{release}kdump.img")
    assert (seen.place.kind, seen.place.place, seen.target, seen.image_present, seen.image_stale) == (
        "nfs",
        "192.0.2.1:/x",
        "/d",
        True,
        "",
    )
    for path in (CONF, "/etc/fstab", f"/lib/modules/{release}/modules.dep"):
        newer = FileFact(mtime=3 * 10**18, text="", mode="0644")
        assert path in capture(msgspec.structs.replace(facts, files={**facts.files, path: newer})).image_stale
    newer = with_file(facts, SYSCONFIG, red_hat_file("el9.sysconfig"), mtime=3 * 10**18)
    assert capture(newer).image_stale == ""  # it is read at the load and is not in the image
    moved = {k: v for k, v in facts.files.items() if not k.endswith("kdump.img")}
    moved[f"/var/lib/kdump/initramfs-{release}kdump.img"] = FileFact(size=1, mtime=2 * 10**18)
    assert capture(msgspec.structs.replace(facts, files=moved)).image.startswith("/var/lib/kdump/")


def armed(name="el9", **kernel):
    facts = after(redhat(name), plan(redhat(name), name), name)
    return msgspec.structs.replace(facts, kernel=msgspec.structs.replace(facts.kernel, **kernel))


def test_what_was_loaded_is_concluded_only_where_it_can_be():
    unknown = armed()
    assert (capture(unknown).loaded_arguments, capture(unknown).reload) == (None, "")
    booted = armed(booted=2 * 10**18)  # the service loaded the file as it is
    loaded = capture(booted).loaded_arguments
    assert loaded.count("nr_cpus=1") == 1 and not [w for w in loaded if w.startswith(("crashkernel", "root="))]
    assert plan(booted).status == "none"
    edited = armed(booted=10**17)
    assert capture(edited).loaded_arguments is None and kinds(plan(edited)) == ["reload"]
    noted = with_file(edited, "/run/kdump-orchestrator/loaded", edited.files[SYSCONFIG].sha256 + "\n")
    assert capture(noted).loaded_arguments == loaded and plan(noted).status == "none"
    other = with_file(edited, "/run/kdump-orchestrator/loaded", "0" * 64 + "\n")
    assert "nothing tells" in plan(other).changes[0].why


def test_a_change_of_the_sysconfig_is_loaded_at_once():
    p = plan(armed(booted=2 * 10**18), policy=asking(capture={"ensure": ["foo=1"]}))
    assert kinds(p) == ["file", "reload"] and p.action == "reload" and not p.reboot


def test_what_is_not_supported():
    def why(facts, name="el9", policy=DEFAULT, **where):
        p = plan(facts, name, policy, **where)
        assert (p.status, p.changes) == ("unsupported", [])
        return p.refusals[0].what

    assert "older than 8" in why(redhat(), distribution_version="7.9")
    assert "not supported yet" in why(redhat(), distribution="scientific")
    assert "boot stack" in why(redhat(), boot_stack="grub")
    read_only = msgspec.structs.replace(redhat().distribution, read_only_root=True)
    assert "read-only" in why(redhat(distribution=read_only))
    gone = msgspec.structs.replace(redhat(), files={k: v for k, v in redhat().files.items() if k != CONF})
    assert "reinstall" in why(gone)
    early = plan(redhat(), policy=asking(early=True))
    assert (early.status, early.changes) == ("refused", []) and "early" in early.refusals[0].what
    power = redhat_platform("el9", arch="ppc64le")
    fadump = Decider(DEFAULT, K).decide(redhat(), power)
    fadump = msgspec.structs.replace(fadump, settings=msgspec.structs.replace(fadump.settings, fadump="on"))
    family = Planner(K).families["redhat"]
    wanted = family.desired(fadump, redhat(), power, boot_of(redhat(), power))
    assert not wanted.supported and "fadump" in wanted.why_not


def test_a_login_that_is_missing_is_made_and_asked_for():
    facts = redhat()
    facts = msgspec.structs.replace(facts, ssh=msgspec.structs.replace(facts.ssh, keys=[]))
    p = plan(facts, policy=POLICIES["ssh"])
    assert "login" in kinds(p) and any("known_hosts" in note for note in p.notes)
    shouting = plan(facts, policy=asking(target={"ssh": "kdump@Dumps.Example"}))
    assert read(conf_after(shouting, facts))["ssh"] == "kdump@dumps.example"  # as ssh -G writes it


def test_unfit_is_not_an_error_of_the_fleet():
    with pytest.raises(Unfit):
        read("x\n")
