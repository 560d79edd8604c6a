# SPDX-License-Identifier: Apache-2.0
"""SUSE: exact changes of /etc/sysconfig/kdump, one owner of crashkernel=, pbl, snapshots, what is not changed."""

from __future__ import annotations

import base64
import json
import subprocess

import msgspec
import pytest

from orchestrator import bootloaders, hostside
from orchestrator.cmdline import split
from orchestrator.documents.facts import FileFact
from orchestrator.fleet.act import change_document
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.plan import Planner
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load, parse
from tests.builders import file
from tests.families import SUSE_RELEASE, SUSES, grub2_lines, suse, suse_platform, suse_sysconfig

K = knowledge()
DEFAULT = load(default_path(), K)
CRASHKERNEL = "crashkernel=1G-64G:256M,64G-:384M"
CONFIG, GRUB = "/etc/sysconfig/kdump", "/etc/default/grub"
APPEND = "mce=off udev.children-max=2 panic=10 transparent_hugepage=never novmcoredd hest_disable pcie_ports=compat"


def plan(facts, where=None, policy=DEFAULT):
    where = where or suse_platform()
    return Planner(K).plan_host(facts, where, Decider(policy, K).decide(facts, where))


def rules(rest):
    return parse(f"apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {{name: t}}\nspec:\n{rest}", "t.yaml", K)


def settings(text):
    return rules(f"  default: {{strategy: [kdump_reset], settings: {text}}}\n")


def names(p):
    return [c.step.get("name") or c.step.get("op") for c in p.changes]


def assigned(p):
    return dict(next(c.step["assignments"] for c in p.changes if c.step["op"] == "assign"))


def with_files(facts, **more):
    return msgspec.structs.replace(facts, files={**facts.files, **{k.replace("__", "/"): v for k, v in more.items()}})


def config(facts, *pairs):
    text = hostside.assign(facts.files[CONFIG].text, list(pairs))
    return msgspec.structs.replace(facts, files={**facts.files, CONFIG: file(text)})


def applied(facts, where, policy=DEFAULT):
    """The host after its own plan and a reboot: files as predicted, the menu with the wanted arguments."""
    planner = Planner(K)
    decision = Decider(policy, K).decide(facts, where)
    p = planner.plan_host(facts, where, decision)
    files, arguments = dict(facts.files), "quiet"
    for change in p.changes:
        step = change.step
        if step["op"] == "assign":
            files[step["path"]] = file(hostside.assign(facts.files[step["path"]].text, step["assignments"]))
        if step.get("name") == "kdump-commandline":
            value = hostside.read_assignments(files[CONFIG].text)["KDUMP_CRASHKERNEL"][0]
            arguments += f" {value}"
        if step.get("name") == "pbl-arguments":
            arguments += "".join(f" {a}" for a in step["ensure"])
    new = suse(
        next(n for n, row in SUSES.items() if row[0] == where.distribution and row[1] == where.distribution_version),
        arguments=arguments,
    )
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=True, crash_size=256 << 20)
    return msgspec.structs.replace(new, files={**files, GRUB: new.files[GRUB]}, kexec=kexec)


@pytest.mark.parametrize("name", sorted(SUSES))
def test_a_stock_guest_and_the_second_plan_is_none(name):
    facts, where = suse(name), suse_platform(name)
    p = plan(facts, where)
    writer = "pbl-arguments" if name == "sles15" else "kdump-commandline"
    assert (p.status, p.action, p.trial, p.family) == ("changes", "reboot", {}, "suse")
    assert names(p) == ["assign", writer, "kdump-build-image"]
    wanted = {"KDUMP_COMMANDLINE_APPEND": APPEND}
    if name != "sles15":
        wanted |= {"KDUMP_CPUS": "1", "KDUMP_CRASHKERNEL": CRASHKERNEL}
    assert assigned(p) == wanted
    assert any("2.0.19" in note for note in p.notes)  # why there is no trial
    again = plan(applied(facts, where), where)
    assert (again.status, again.changes, again.reboot) == ("none", [], False), again


def test_exact_bytes_and_what_a_shell_reads():
    facts = suse()
    step = plan(facts).changes[0].step
    after = hostside.assign(facts.files[CONFIG].text, step["assignments"])
    expected = suse_sysconfig().replace("KDUMP_CPUS=32", 'KDUMP_CPUS="1"')
    expected = expected.replace('KDUMP_CRASHKERNEL="auto"', f'KDUMP_CRASHKERNEL="{CRASHKERNEL}"')
    assert after == expected.replace('_APPEND=""', f'_APPEND="{APPEND}"')
    ours = hostside.read_assignments(after)
    script = f"{after}\nfor n in {' '.join(ours)}; do eval printf '%s=%s\\\\n' $n \\\"\\$$n\\\"; done"
    got = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert got == [f"{k}={v}" for k, (v, _line) in ours.items()]


def test_one_cpu_is_never_said_twice():
    facts = config(suse(), ("KDUMP_COMMANDLINE_APPEND", "nr_cpus=4 foo=1 irqpoll"))
    got = assigned(plan(facts))
    assert got["KDUMP_CPUS"] == "1" and "nr_cpus" not in got["KDUMP_COMMANDLINE_APPEND"]
    assert split(got["KDUMP_COMMANDLINE_APPEND"])[0] == "foo=1" and "irqpoll" not in got["KDUMP_COMMANDLINE_APPEND"]
    whole = config(suse(), ("KDUMP_COMMANDLINE", "root=kdump rootflags=bind reset_devices"))
    got = assigned(plan(whole))  # load.sh adds nothing to a whole command line
    assert "KDUMP_CPUS" not in got and {"nr_cpus=1", "irqpoll"} <= set(split(got["KDUMP_COMMANDLINE_APPEND"]))


def test_what_the_first_kernel_brings_is_not_appended_again():
    got = assigned(plan(suse(arguments="quiet mce=off panic=30")))
    words = split(got["KDUMP_COMMANDLINE_APPEND"])
    assert "mce=off" not in words and "panic=10" in words


def test_a_pair_from_kdumps_own_calculation_is_kept():
    pair = "crashkernel=72M,low crashkernel=300M,high"
    facts = suse(arguments=f"quiet {pair}")
    p = plan(facts)
    assert "KDUMP_CRASHKERNEL" not in assigned(p) and "kdump-commandline" not in names(p)
    assert plan(config(facts, ("KDUMP_CRASHKERNEL", "crashkernel=1M"))).changes[0].step["assignments"][-1] == [
        "KDUMP_CRASHKERNEL", pair]  # fmt: skip


def test_what_was_loaded_is_concluded():
    """From the time of the boot, or from the note of our own load; else the next plan loads again."""
    from orchestrator.planning.rows import missing

    done, where = applied(suse(), suse_platform()), suse_platform()
    planner = Planner(K)
    boot = bootloaders.next_boot("grub", done)

    def loaded(facts):
        return planner.families["suse"].capture(facts, where, boot).loaded_arguments

    assert loaded(done) is None
    since = msgspec.structs.replace(done, kernel=msgspec.structs.replace(done.kernel, booted=2 * 10**18))
    wanted = planner.desired(Decider(DEFAULT, K).decide(since, where), since, where, boot)
    assert missing(loaded(since), wanted) == [] and "nr_cpus=1" in loaded(since)
    before = msgspec.structs.replace(done, kernel=msgspec.structs.replace(done.kernel, booted=1))
    p = plan(before)
    assert names(p) == ["kdump-reload"] and "changed since the boot" in p.changes[0].why
    note = msgspec.structs.replace(
        before, files={**before.files, "/run/kdump-orchestrator/loaded": file(before.files[CONFIG].sha256 + "\n")}
    )
    assert missing(loaded(note), wanted) == [] and plan(note).status == "none"


def test_memory_is_not_given_back():
    assert assigned(plan(config(suse(), ("KDUMP_AUTO_RESIZE", "true"))))["KDUMP_AUTO_RESIZE"] == "false"


def test_every_argument_has_one_writer():
    facts = suse(first="crashkernel=64M", arguments="quiet crash_kexec_post_notifiers")
    p = plan(facts)
    assert names(p) == ["assign", "kdump-commandline", "pbl-arguments", "kdump-build-image"]
    step = p.changes[2].step
    assert (step["ensure"], step["remove"]) == ([], ["crash_kexec_post_notifiers"])
    older = plan(suse("sles15", arguments="crashkernel=64M quiet crashkernel=32M"), suse_platform("sles15"))
    assert names(older)[1] == "pbl-arguments" and older.changes[1].step["ensure"] == [CRASHKERNEL]


def test_the_notifiers_go_through_pbl():
    policy = rules("  default: {strategy: [crash_kexec_post_notifiers]}\n")
    p = plan(suse(), policy=policy)
    step = next(c.step for c in p.changes if c.step.get("name") == "pbl-arguments")
    assert step["ensure"] == ["crash_kexec_post_notifiers"] and p.boot_expect[0]["present"] == step["ensure"]
    assert p.changes[-1].step["value"] == "Y"


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        ("{target: {path: /srv/crash}}", {"KDUMP_SAVEDIR": "/srv/crash"}),
        ("{target: {path: /var/crash}}", {}),
        ('{target: {nfs: "srv:/export", path: /a}}', {"KDUMP_SAVEDIR": "nfs://srv/export/a"}),
        (
            "{target: {ssh: kdump@srv, path: /a, key: /root/.ssh/kdump_id_rsa}}",
            {"KDUMP_SAVEDIR": "ssh://kdump@srv/a", "KDUMP_SSH_IDENTITY": "/root/.ssh/kdump_id_rsa"},
        ),
        ("{dump: {level: 17, compression: zstd}}", {"KDUMP_DUMPLEVEL": "17", "KDUMP_DUMPFORMAT": "zstd"}),
        ("{dump: {collector: copy}}", {"KDUMP_DUMPFORMAT": "raw"}),
        ("{retention: {keep: 3, minimum_free: 1G}}", {"KDUMP_KEEP_OLD_DUMPS": "3", "KDUMP_FREE_DISK_SIZE": "1024"}),
        ("{actions: {final: reboot, failure: shell}}", {"KDUMP_CONTINUE_ON_ERROR": "false"}),
        ("{actions: {failure: reboot}}", {}),
        ("{reservation: {crashkernel: 512M}}", {"KDUMP_CRASHKERNEL": "crashkernel=512M"}),
        (
            '{reservation: {crashkernel: ["400M,high", "128M,low"]}}',
            {"KDUMP_CRASHKERNEL": "crashkernel=400M,high crashkernel=128M,low"},
        ),
    ],
)
def test_settings_reach_the_file(wish, wanted):
    p = plan(suse(), policy=settings(wish))
    got = assigned(p)
    for key in ("KDUMP_CPUS", "KDUMP_COMMANDLINE_APPEND"):
        got.pop(key)
    if "KDUMP_CRASHKERNEL" not in wanted:
        got.pop("KDUMP_CRASHKERNEL")
    assert got == wanted, p.refusals


@pytest.mark.parametrize(
    ("wish", "refusal"),
    [
        ("{actions: {final: poweroff}}", "suse-final"),
        ("{actions: {failure: dump_to_rootfs}}", "suse-failure"),
        ("{target: {raw: /dev/sdb1}}", "suse-raw"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wish, refusal):
    p = plan(suse(), policy=settings(wish))
    assert (p.status, [r.id for r in p.refusals], p.changes) == ("refused", [refusal], [])


def test_the_image_is_for_the_kernel_that_pbl_names():
    facts = suse()
    old = FileFact(size=9, mode="0644", mtime=10**18, link="../usr/lib/modules/6.4.0-1-default/vmlinuz")
    p = plan(with_files(applied(facts, suse_platform()), __var__lib__kdump__kernel=old))
    assert names(p) == ["kdump-build-image", "kdump-reload"] and "6.4.0-1-default" in p.changes[0].why
    newer = with_files(applied(facts, suse_platform()), __boot__vmlinuz=FileFact(link="vmlinuz-7.0.0-1-default"))
    assert plan(newer).changes[0].step["release"] == "7.0.0-1-default"
    touched = applied(facts, suse_platform())
    stale = {**touched.files, CONFIG: msgspec.structs.replace(touched.files[CONFIG], mtime=3 * 10**18)}
    assert "newer" in plan(msgspec.structs.replace(touched, files=stale)).changes[0].why


def test_a_package_that_is_missing():
    facts = suse(packages={"bash": "5"}, services={})
    gone = {k: v for k, v in facts.files.items() if "kdump" not in k}
    p = plan(msgspec.structs.replace(facts, files=gone))
    assert names(p) == ["package-install", "assign", "kdump-commandline", "kdump-build-image", "service-enable"]
    assert p.changes[1].step["before_sha256"] == "from-package"
    older = plan(suse("sles15", packages={"bash": "5"}), suse_platform("sles15"))
    assert older.status == "unsupported" and "install it, then plan again" in older.refusals[0].what


def test_no_kdump_turns_its_own_updater_off_with_it():
    facts = applied(suse(), suse_platform())
    policy = rules("  default: {disable: no room for it}\n")
    p = plan(facts, policy=policy)
    assert names(p) == ["pbl-arguments", "service-disable", "kdump-unload"]
    assert "crashkernel" in p.changes[0].step["remove"] and p.boot_expect[0]["absent"]
    units = hostside.load("kdo_txn_kit").FAMILIES["suse"].units["kdump.service"]
    assert any("kdump-commandline.service" in link for link in units)


SNAPSHOT = {"read_only_root": True}


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({"packages": {"kdump": "1.0.2-1"}}, {}, "YaST"),
        ({"packages": {"kdump": "2.0.0-1"}}, {"arch": "ppc64le"}, "2.0.2"),
        ({}, {"boot_stack": "grub-bls"}, "grub-bls"),
        ({}, {"boot_stack": "unknown"}, "cannot be told"),
        ({}, {"distribution_version": "12.5"}, "older than 15"),
        ({}, {"distribution": "sle-micro"}, "sle-micro"),
    ],
)
def test_what_is_not_changed(change, where, why):
    p = plan(suse(**change), suse_platform(**where))
    assert (p.status, p.changes) == ("unsupported", []) and why in p.refusals[0].what


def test_snapshots_are_left_to_transactional_update():
    facts = suse()
    marked = msgspec.structs.replace(facts.boot, markers=[*facts.boot.markers, "/etc/transactional-update.conf"])
    only = msgspec.structs.replace(facts.distribution, read_only_root=True)
    p = plan(msgspec.structs.replace(facts, boot=marked, distribution=only), suse_platform(distribution="sl-micro"))
    assert p.status == "unsupported" and "transactional-update setup-kdump" in p.refusals[0].what


def test_a_measured_command_line_and_fadump_are_left_alone():
    facts = suse()
    marked = msgspec.structs.replace(facts.boot, markers=[*facts.boot.markers, "/var/lib/systemd/pcrlock.json"])
    assert "sdbootutil" in plan(msgspec.structs.replace(facts, boot=marked)).refusals[0].what
    assert "fadump" in plan(config(facts, ("KDUMP_FADUMP", "true"))).refusals[0].what


def test_what_cannot_be_read_or_is_not_grub_is_refused():
    tricky = with_files(suse(), __etc__sysconfig__kdump=file("KDUMP_CPUS=$(nproc)\n"))
    assert plan(tricky).status == "unsupported"
    for key, wrong in (
        ("__etc__sysconfig__bootloader", file('LOADER_TYPE="none"\n')),
        ("__etc__default__grub", FileFact(error="permission denied")),
        ("__etc__default__grub", file("GRUB_CMDLINE_LINUX_DEFAULT=`cat /x`\nGRUB_CMDLINE_LINUX=$(x) crashkernel\n")),
    ):
        p = plan(with_files(suse(), **{key: wrong}))
        assert (p.status, [r.id for r in p.refusals], p.changes) == ("refused", ["file-unreadable"], []), key


def test_systemd_boot_has_its_entries_edited():
    options = "root=UUID=aaaa quiet"
    entry = "/boot/efi/loader/entries/opensuse-tumbleweed-6.12.0-1.conf"
    text = f"title openSUSE\nversion 6.12.0-1\nlinux /opensuse-tumbleweed/6.12.0/linux-aa\noptions {options}\n"
    facts = with_files(suse("tumbleweed"), __etc__kernel__cmdline=file(options + "\n"))
    facts = msgspec.structs.replace(facts, files={**facts.files, entry: file(text)})
    p = plan(facts, suse_platform("tumbleweed", boot_stack="systemd-boot"))
    assert names(p) == ["assign", "arguments", "arguments", "arguments", "loader-settle", "kdump-build-image"]
    assert p.trial == {} and {c.step.get("path") for c in p.changes} >= {entry, "/etc/kernel/cmdline"}


def test_every_step_is_one_that_the_host_side_accepts():
    doc = hostside.load("kdo_txn_doc")
    policies = [
        DEFAULT,
        rules("  default: {strategy: [crash_kexec_post_notifiers]}\n"),
        settings('{target: {nfs: "s:/e"}}'),
    ]
    fresh = suse(packages={"bash": "1"}, services={})
    fresh = msgspec.structs.replace(fresh, files={k: v for k, v in fresh.files.items() if "kdump" not in k})
    for policy in policies:
        for facts in (suse(), fresh, suse(first="crashkernel=1M")):
            p = plan(facts, policy=policy)
            assert p.changes
            doc.validate(json.loads(base64.b64decode(change_document(p, "0" * 64))))


def test_the_next_boot_is_read_from_the_menu():
    stale = suse()
    lines = grub2_lines(SUSE_RELEASE, f"quiet {CRASHKERNEL}")
    grub = msgspec.structs.replace(stale.boot.grub, lines=lines)
    facts = msgspec.structs.replace(stale, boot=msgspec.structs.replace(stale.boot, grub=grub))
    assert "kdump-commandline" not in names(plan(facts))
