# SPDX-License-Identifier: Apache-2.0
"""rpm-ostree hosts: arguments by deployment, the next boot from rpm-ostree, files in /etc as on Red Hat's."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from orchestrator import hostside
from orchestrator.bootloaders import STACKS
from orchestrator.fleet.act import change_document
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.plan import Planner
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import default_path, load, parse
from tests.builders import file
from tests.families import COREOS_RELEASE, coreos, coreos_platform

K = knowledge()
DEFAULT = load(default_path(), K)
CRASHKERNEL = "crashkernel=2G-64G:256M,64G-:512M"


def plan(facts, where=None, policy=DEFAULT):
    where = where or coreos_platform()
    return Planner(K).plan_host(facts, where, Decider(policy, K).decide(facts, where))


def rules(rest):
    return parse(f"apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {{name: t}}\nspec:\n{rest}", "t.yaml", K)


def names(p):
    return [c.step.get("name") or c.step.get("op") for c in p.changes]


def test_a_stock_guest_and_the_second_plan_is_none():
    p = plan(coreos())
    assert (p.status, p.action, p.family, p.trial) == ("changes", "reboot", "ostree", {})
    assert names(p) == ["assign", "rpm-ostree-kargs"]
    assert p.changes[1].step == {"op": "action", "name": "rpm-ostree-kargs", "ensure": [CRASHKERNEL], "remove": []}
    assert any("rollback" in note for note in p.notes)  # why there is no trial
    files = dict(coreos().files)
    files["/etc/sysconfig/kdump"] = file(
        hostside.assign(files["/etc/sysconfig/kdump"].text, p.changes[0].step["assignments"])
    )
    kexec = msgspec.structs.replace(coreos().kexec, crash_loaded=True, crash_size=256 << 20)
    again = plan(coreos(arguments=f"quiet {CRASHKERNEL}", files=files, kexec=kexec))
    assert (again.status, again.changes) == ("none", []), again


def test_a_staged_deployment_counts_before_the_reboot():
    p = plan(coreos(kargs=f"root=UUID=x quiet {CRASHKERNEL}"))
    assert "rpm-ostree-kargs" not in names(p) and p.reboot


def test_two_become_one_and_the_notifiers_are_a_flag():
    policy = rules("  default: {strategy: [crash_kexec_post_notifiers]}\n")
    p = plan(coreos(arguments="crashkernel=1M crashkernel=2M"), policy=policy)
    step = next(c.step for c in p.changes if c.step.get("name") == "rpm-ostree-kargs")
    assert step["ensure"] == [CRASHKERNEL, "crash_kexec_post_notifiers"]
    off = plan(coreos(arguments=f"{CRASHKERNEL} crash_kexec_post_notifiers"))
    step = next(c.step for c in off.changes if c.step.get("name") == "rpm-ostree-kargs")
    assert (step["ensure"], step["remove"]) == ([], ["crash_kexec_post_notifiers"])


def test_the_next_boot():
    stack = STACKS["ostree"]
    assert stack.next_boot(coreos(kargs="a b=1")).arguments == ["a", "b=1"]
    entries = coreos(arguments="c=2", kargs="")
    two = file(f"title new\nversion 2\noptions root=UUID=x d=3\nlinux /ostree/y/vmlinuz-{COREOS_RELEASE}\n")
    both = msgspec.structs.replace(entries, files={**entries.files, "/boot/loader/entries/ostree-2.conf": two})
    assert "c=2" in stack.next_boot(entries).arguments and stack.next_boot(both).arguments == ["root=UUID=x", "d=3"]
    assert stack.next_boot(both).release == COREOS_RELEASE
    staged = msgspec.structs.replace(both.boot, markers=["/run/ostree/staged-deployment"])
    assert not stack.next_boot(msgspec.structs.replace(both, boot=staged)).known
    assert not stack.next_boot(msgspec.structs.replace(entries, files={})).known


@pytest.mark.parametrize(
    ("change", "where", "why"),
    [
        ({"packages": {"bash": "5"}}, {}, "not part of this image"),
        ({}, {"distribution": "silverblue"}, "silverblue"),
        ({}, {"boot_stack": "grub-bls"}, "grub-bls"),
    ],
)
def test_what_is_not_changed(change, where, why):
    p = plan(coreos(**change), coreos_platform(**where))
    assert (p.status, p.changes) == ("unsupported", []) and why in p.refusals[0].what, p.refusals


def test_every_step_is_one_that_the_host_side_accepts():
    doc = hostside.load("kdo_txn_doc")
    doc.validate(json.loads(base64.b64decode(change_document(plan(coreos()), "0" * 64))))
