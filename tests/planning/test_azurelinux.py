# SPDX-License-Identifier: Apache-2.0
"""Azure Linux 2 to 4: grub.d or loader entries, kdumpctl, and what is only reported."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from orchestrator import hostside
from orchestrator.bootloaders.grub import snippet
from orchestrator.fleet.act import change_document
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.plan import Planner
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load
from tests.builders import RED_HATS, file, redhat, redhat_platform
from tests.families import AZURE_CONF, AZURE_RELEASE, AZURE_SYSCONFIG, azurelinux, azurelinux_platform, grub2_lines

K = knowledge()
DEFAULT = load(default_path(), K)
CRASHKERNEL = "crashkernel=512M-32G:256M,32G-:512M"
SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"


def plan(facts, where=None):
    where = where or azurelinux_platform()
    return Planner(K).plan_host(facts, where, Decider(DEFAULT, K).decide(facts, where))


def names(p):
    return [c.step.get("name") or c.step.get("op") for c in p.changes]


def applied(facts):
    p = plan(facts)
    files = dict(facts.files)
    for step in (c.step for c in p.changes):
        if step["op"] == "assign":
            files[step["path"]] = file(hostside.assign(files[step["path"]].text, step["assignments"]))
        if step["op"] == "write":
            files[step["path"]] = file(step["text"])
    new = azurelinux(arguments=f"quiet {CRASHKERNEL}")
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=True, crash_size=256 << 20)
    image = {k: v for k, v in new.files.items() if k.endswith("kdump.img")}
    return msgspec.structs.replace(new, files={**files, **image}, kexec=kexec)


def test_a_stock_guest_and_the_second_plan_is_none():
    p = plan(azurelinux())
    assert (p.status, p.action, p.family, p.trial) == ("changes", "reboot", "azurelinux", {})
    assert names(p) == ["assign", "write", "grub2-regenerate"]
    write = p.changes[1].step
    assert (write["path"], write["text"]) == (
        SNIPPET,
        snippet([CRASHKERNEL], ["crash_kexec_post_notifiers", "crashkernel"]),
    )
    assert p.boot_expect[0]["path"] == "/boot/grub2/grub.cfg"
    after = hostside.assign(AZURE_SYSCONFIG, p.changes[0].step["assignments"])
    assert (
        'KDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1 reset_devices cgroup_disable=memory udev.children-max=2' in after
    )
    again = plan(applied(azurelinux()))
    assert (again.status, again.changes) == ("none", []), again


def test_the_packages_own_size_counts_until_ours_replaces_it():
    p = plan(azurelinux(arguments="crashkernel=256M crashkernel=64M"))
    assert "grub2-regenerate" in names(p) and "crashkernel=256M crashkernel=64M" in p.changes[-1].why


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({}, {"distribution": "mariner", "distribution_version": "2.0"}, "mariner.cfg"),
        ({"packages": {"bash": "5"}}, {}, "install it, then plan again"),
        ({}, {"boot_stack": "systemd-boot"}, "systemd-boot"),
    ],
)
def test_what_is_not_changed(change, where, why):
    p = plan(azurelinux(**change), azurelinux_platform(**where))
    assert (p.status, p.changes) == ("unsupported", []) and why in p.refusals[0].what, p.refusals


def test_a_menu_made_by_hand_is_left_alone():
    facts = azurelinux()
    lines = grub2_lines(AZURE_RELEASE, "$mariner_cmdline quiet")
    grub = msgspec.structs.replace(facts.boot.grub, lines=lines)
    p = plan(msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=grub)))
    assert p.status == "unsupported" and "$mariner_cmdline" in p.refusals[0].what


def test_release_4_is_like_fedora():
    facts, where = (
        redhat("fedora"),
        redhat_platform("fedora", family="azurelinux", distribution="azurelinux", distribution_version="4.0"),
    )
    p = plan(facts, where)
    assert p.status == "changes" and "loader-settle" in names(p) and RED_HATS["fedora"]
    theirs = Planner(K).plan_host(
        facts, redhat_platform("fedora"), Decider(DEFAULT, K).decide(facts, redhat_platform("fedora"))
    )
    assert names(p) == names(theirs)


def test_every_step_is_one_that_the_host_side_accepts():
    doc = hostside.load("kdo_txn_doc")
    doc.validate(json.loads(base64.b64decode(change_document(plan(azurelinux()), "0" * 64))))
    stale = azurelinux()
    conf = msgspec.structs.replace(file(AZURE_CONF), mtime=3 * 10**18)
    p = plan(msgspec.structs.replace(stale, files={**stale.files, "/etc/kdump.conf": conf}))
    assert "kdump-build-image" in names(p)
    doc.validate(json.loads(base64.b64decode(change_document(p, "0" * 64))))
