# SPDX-License-Identifier: Apache-2.0
"""Decision × facts → plan on Debian: exact changes, the smallest action, idempotence, stale fingerprints, refusals."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import hostside
from orchestrator.bootloaders.grub import next_boot, snippet
from orchestrator.cmdline import split
from orchestrator.documents.base import encode
from orchestrator.documents.facts import FileFact, GrubConfig
from orchestrator.fleet.act import change_document
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import Planner, seal
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load, parse
from orchestrator.resources import data_path
from tests.builders import KDUMP_TOOLS, RELEASE, debian, file, grub_lines, kernel, platform

K = knowledge()
DEFAULT = load(default_path(), K)
APPEND = (
    "reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1 irqpoll usbcore.nousb cgroup_disable=memory mce=off numa=off "
    "udev.children-max=2 panic=10 acpi_no_memhotplug transparent_hugepage=never nokaslr novmcoredd hest_disable pcie_ports=compat"
)
CONFIGURED = KDUMP_TOOLS + f'KDUMP_CMDLINE_APPEND="{APPEND}"\n'
CRASHKERNEL = "crashkernel=384M-:128M"


def plan(facts, where=None, policy=DEFAULT):
    where = where or platform()
    return Planner(K).plan_host(facts, where, Decider(policy, K).decide(facts, where))


def rules(rest):
    return parse(f"apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {{name: t}}\nspec:\n{rest}", "t.yaml", K)


def armed(**changes):
    """The same guest after everything was applied and booted."""
    facts = debian(arguments=f"quiet {CRASHKERNEL}")
    files = {
        **facts.files,
        "/etc/default/kdump-tools": file(CONFIGURED),
        "/etc/default/grub.d/zz-kdump-orchestrator.cfg": file(
            snippet([CRASHKERNEL], ["crashkernel", "crash_kexec_post_notifiers"])
        ),
        "/var/crash/kexec_cmd": file(
            f'/sbin/kexec -p --command-line="root=UUID=aaaa ro quiet {APPEND}" --initrd=/x /y\n'
        ),
    }
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=True, crash_size=128 << 20)
    return msgspec.structs.replace(facts, files=files, kexec=kexec, **changes)


def kinds(p):
    return [c.kind for c in p.changes]


def test_an_unconfigured_guest_needs_files_boot_and_a_reboot():
    p = plan(debian())
    assert (p.status, p.action, p.strategy, kinds(p)) == (
        "changes",
        "reboot",
        "custom_handler",
        ["file", "file", "boot"],
    )
    assert "nothing" not in p.reboot_why and "0 reserved" in p.reboot_why
    assign, write, boot = (c.step for c in p.changes)
    assert assign["assignments"] == [["KDUMP_CMDLINE_APPEND", APPEND]]  # USE_KDUMP is 1 already
    assert assign["before_sha256"] == debian().files["/etc/default/kdump-tools"].sha256 and assign["after_sha256"]
    assert write["before_sha256"] is None and boot == {"op": "action", "name": "grub-regenerate"}
    assert p.boot_expect == [
        {"kind": "words", "path": "/boot/grub/grub.cfg", "line_prefix": "linux", "once": {"crashkernel=": CRASHKERNEL}, "present": [],
         "absent": ["crash_kexec_post_notifiers", "crash_kexec_post_notifiers="]}
    ]  # fmt: skip
    assert "+KDUMP_CMDLINE_APPEND=" in p.changes[0].diff and p.changes[1].diff.startswith("--- /dev/null")


def test_nothing_to_change_the_second_time():
    p = plan(armed())
    assert (p.status, p.action, p.changes, p.reboot) == ("none", "none", [], False)
    assert [(r.what, r.loaded) for r in p.rows][2] == ("capture arguments", "as wanted")


def test_a_missing_package_is_installed_and_its_file_comes_with_it():
    facts = debian(packages={"kexec-tools": "1"}, services={})
    facts = msgspec.structs.replace(
        facts, files={k: v for k, v in facts.files.items() if "kdump-tools" not in k and "initrd" not in k}
    )
    p = plan(facts)
    assert kinds(p) == ["package", "file", "file", "boot", "image"]
    assert p.changes[1].step["before_sha256"] == "from-package" and p.changes[1].step["after_sha256"] is None
    assert p.changes[4].step == {"op": "action", "name": "kdump-build-image", "release": RELEASE}


def test_only_the_knob_when_only_the_knob_is_wrong():
    p = plan(kernel(armed(), post_notifiers="Y"))
    assert (kinds(p), p.action) == (["knob"], "knob")
    assert p.changes[0].step == {
        "op": "knob",
        "path": "/sys/module/kernel/parameters/crash_kexec_post_notifiers",
        "value": "N",
        "before": "Y",
    }


def test_only_a_reload_when_the_capture_arguments_are_wrong():
    facts = armed()
    old = file('/sbin/kexec -p --command-line="ro nr_cpus=1 nr_cpus=4 reset_devices" /y\n')
    p = plan(msgspec.structs.replace(facts, files={**facts.files, "/var/crash/kexec_cmd": old}))
    assert (kinds(p), p.action, p.reboot) == (["reload"], "reload", False)
    assert "nr_cpus=1" in p.changes[0].why and p.expect == [
        {"kind": "value", "path": "/sys/kernel/kexec_crash_loaded", "value": "1"}
    ]


def test_what_the_running_command_line_has_already_is_not_appended_again():
    p = plan(debian(arguments="quiet panic=10 nokaslr panic=30"))
    words = split(dict(p.changes[0].step["assignments"])["KDUMP_CMDLINE_APPEND"])
    assert "nokaslr" not in words and words.count("panic=10") == 1 and words.count("nr_cpus=1") == 1


def test_a_reload_that_cannot_work_is_refused_before_anything_is_unloaded():
    facts = armed()
    old = file('/sbin/kexec -p --command-line="ro" /y\n')
    kexec = msgspec.structs.replace(facts.kexec, load_disabled=1)
    p = plan(msgspec.structs.replace(facts, kexec=kexec, files={**facts.files, "/var/crash/kexec_cmd": old}))
    assert (p.status, p.changes, [r.id for r in p.refusals]) == ("refused", [], ["G5"])


def test_order_is_files_boot_reload_then_the_notifiers():
    policy = rules("  default: {strategy: [crash_kexec_post_notifiers]}\n")
    p = plan(armed(), policy=policy)
    assert kinds(p) == ["file", "boot", "knob"]
    assert p.changes[-1].step["value"] == "Y"
    assert p.boot_expect[0]["present"] == ["crash_kexec_post_notifiers"] and p.boot_expect[0]["absent"] == []
    old = debian(arguments="quiet")
    assert (
        kinds(
            plan(
                msgspec.structs.replace(
                    armed(), boot=old.boot, files={**armed().files, "/var/crash/kexec_cmd": file("")}
                ),
                policy=policy,
            )
        )[-1]
        == "knob"
    )


def test_a_larger_reservation_is_kept_and_a_smaller_one_replaced():
    big = armed()
    big = msgspec.structs.replace(
        big,
        boot=debian(arguments="crashkernel=512M").boot,
        kexec=msgspec.structs.replace(big.kexec, crash_size=512 << 20),
    )
    files = {k: v for k, v in big.files.items() if "zz-" not in k}
    assert plan(msgspec.structs.replace(big, files=files)).status == "none"
    small = msgspec.structs.replace(big, boot=debian(arguments="crashkernel=64M").boot, files=files)
    assert "crashkernel=64M, wanted is crashkernel=384M-:128M once" in plan(small).changes[-1].why


def test_two_crashkernel_arguments_become_one():
    facts = debian(arguments="crashkernel=256M crashkernel=128M")
    p = plan(facts)
    assert "boot" in kinds(p) and "crashkernel=256M crashkernel=128M" in p.changes[-1].why


def test_a_reservation_that_the_kernel_would_ignore_is_refused():
    tiny = debian(memory=msgspec.structs.replace(debian().memory, total=256 << 20, system_ram=256 << 20))
    p = plan(tiny)
    assert (p.status, [r.id for r in p.refusals]) == ("refused", ["reservation"]) and "silently" in p.refusals[0].why


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ({"family": "redhat", "distribution": "rhel", "distribution_version": "9.4"}, "redhat"),
        ({"family": "unknown", "distribution": "void"}, "unknown"),
        ({"distribution_version": "10"}, "older than 11"),
        ({"boot_stack": "extlinux"}, "extlinux"),
    ],
)
def test_other_families_and_boot_stacks_are_never_touched(where, why):
    p = plan(debian(), platform(**where))
    assert (p.status, p.changes) == ("unsupported", []) and why in p.refusals[0].what and p.strategy == "custom_handler"


def test_what_was_not_seen_is_not_changed():
    unread = debian(boot=msgspec.structs.replace(debian().boot, grub=GrubConfig()))
    assert [r.id for r in plan(unread).refusals] == ["boot-unknown"]
    denied = debian(files={**debian().files, "/etc/default/kdump-tools": FileFact(error="permission denied")})
    assert [r.id for r in plan(denied).refusals] == ["file-unreadable"]
    tricky = debian(
        files={**debian().files, "/etc/default/kdump-tools": file("USE_KDUMP=1\nKDUMP_CMDLINE_APPEND=`cat /x`\n")}
    )
    assert plan(tricky).status in ("unsupported", "refused")


def test_audit_reports_and_never_enforces():
    policy = rules("  default: {strategy: [kdump_reset], level: audit}\n")
    p = plan(debian(), policy=policy)
    assert p.status == "audit" and p.changes and seal(policy, [p]).changes == 0


def test_policy_settings_reach_the_files():
    policy = rules(
        "  settings:\n    sysctls: {kernel.panic_on_oops: 1}\n    dump: {level: 17, compression: zstd}\n    target: {path: /srv/crash}\n"
        "  default: {strategy: [kdump_reset], settings: {reservation: {crashkernel: 512M}, capture: {ensure: [foo=1], remove: [mce]}}}\n"
    )
    p = plan(debian(), policy=policy)
    assigned = dict(p.changes[0].step["assignments"])
    assert assigned["MAKEDUMP_ARGS"] == "-z -d 17" and assigned["KDUMP_COREDIR"] == "/srv/crash"
    assert "foo=1" in split(assigned["KDUMP_CMDLINE_APPEND"]) and "mce=off" not in assigned["KDUMP_CMDLINE_APPEND"]
    assert "crashkernel=512M" in p.changes[2].step["text"]
    assert p.changes[1].step["text"].endswith("kernel.panic_on_oops = 1\n")
    assert p.changes[-1].step == {"op": "knob", "path": "/proc/sys/kernel/panic_on_oops", "value": "1", "before": "0"}


def test_a_blanked_secret_never_gets_a_predicted_hash():
    text = KDUMP_TOOLS + "FTP_PASSWORD=<redacted>\n"
    facts = debian(files={**debian().files, "/etc/default/kdump-tools": file(text, redacted=1, sha256="0" * 64)})
    step = plan(facts).changes[0].step
    assert step["after_sha256"] is None and step["before_sha256"] == "0" * 64


def test_same_input_same_bytes_and_the_fingerprint_moves_with_what_matters():
    assert encode(plan(debian())) == encode(plan(debian()))
    base = fingerprint(debian(), platform())
    free = msgspec.structs.replace(debian().targets[0], free=1)
    assert fingerprint(debian(targets=[free]), platform()) == base
    assert fingerprint(kernel(debian(), cmdline="x"), platform()) != base
    assert fingerprint(debian(packages={}), platform()) != base
    assert fingerprint(debian(files={**debian().files, "/etc/default/grub": file("x")}), platform()) != base


def test_every_step_is_one_that_the_host_side_accepts():
    """The plan's own words against the host's allow-list, for every strategy."""
    doc = hostside.load("kdo_txn_doc")
    policies = [
        DEFAULT,
        rules(
            "  default: {strategy: [crash_kexec_post_notifiers], settings: {sysctls: {kernel.unknown_nmi_panic: 1}}}\n"
        ),
    ]
    import base64
    import json

    fresh = debian(packages={}, services={})
    fresh = msgspec.structs.replace(fresh, files={k: v for k, v in fresh.files.items() if "kdump" not in k})
    for policy in policies:
        for facts in (debian(), fresh, kernel(armed(), post_notifiers="Y")):
            p = plan(facts, policy=policy)
            if p.changes:
                doc.validate(json.loads(base64.b64decode(change_document(p, "0" * 64))))


# --- GRUB


def grub(lines, **env):
    facts = debian()
    config = GrubConfig(path="/boot/grub/grub.cfg", sha256="x", lines=lines, env=env)
    return next_boot(msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=config)))


def test_next_boot_reads_the_entry_that_really_boots():
    lines = grub_lines("quiet a=1")
    assert grub(lines).arguments == ["root=UUID=aaaa", "ro", "quiet", "a=1"] and grub(lines).release == RELEASE
    saved = grub_lines("quiet", default="${saved_entry}")
    recovery = f"gnulinux-advanced-aaaa>gnulinux-{RELEASE}-recovery-aaaa"
    assert grub(saved, saved_entry=recovery).arguments[-1] == "single"
    assert grub(lines, next_entry=recovery).arguments[-1] == "single"  # a one-shot choice wins
    assert grub(lines, next_entry="1>1").arguments[-1] == "single"
    assert grub(lines, next_entry="does not exist").title == "Debian GNU/Linux"
    assert not grub([]).known
    assert grub(["linux /boot/vmlinuz-1 a", "initrd /x"]).arguments == ["a"]


WORD = st.from_regex(r"[a-z_]{1,6}(=[A-Za-z0-9_.,:/-]{0,6})?", fullmatch=True)


@given(
    st.lists(
        st.one_of(
            WORD, st.sampled_from(["crashkernel=1M", "crash_kexec_post_notifiers", "crash_kexec_post_notifiers=0"])
        ),
        max_size=8,
    )
)
def test_the_snippet_leaves_exactly_one_of_each_in_a_real_shell(words):
    keys = ("crashkernel", "crash_kexec_post_notifiers")
    text = snippet(["crashkernel=512M-:192M", "crash_kexec_post_notifiers"], list(keys))
    script = f'set -e\nGRUB_CMDLINE_LINUX_DEFAULT="{" ".join(words)}"\nGRUB_CMDLINE_LINUX="{" ".join(words)}"\n{text}printf %s "$GRUB_CMDLINE_LINUX|$GRUB_CMDLINE_LINUX_DEFAULT"'
    got = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    first, second = (part.split() for part in got.split("|"))
    rest = [w for w in words if w.split("=")[0] not in keys]
    assert first == rest and second == [*rest, "crashkernel=512M-:192M", "crash_kexec_post_notifiers"]


def test_pipeline_is_the_same_code_for_one_host():
    p = Pipeline(DEFAULT, K).plan(debian())
    assert p.status == "changes" and p.platform.startswith("x86_64 kvm guest")


def test_core_imports_neither_ansible_nor_jsonschema():
    """The pure core must not need them: a million hosts are planned without."""
    code = "import sys; import orchestrator.planning.plan; sys.exit(any(m in sys.modules for m in ('ansible_runner', 'ansible', 'rich', 'jsonschema')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=data_path("."), check=False).returncode == 0
