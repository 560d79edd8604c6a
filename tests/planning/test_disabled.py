# SPDX-License-Identifier: Apache-2.0
"""No kdump as the wanted state: planned, and checked."""

import msgspec

from orchestrator.checks.run import verdict
from orchestrator.documents.facts import FileFact
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import parse
from tests.builders import KDUMP_TOOLS, debian, file

K = knowledge()
OFF = parse(
    "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: t}\nspec:\n  default: {disable: a baseline asks for it}\n",
    "t.yaml",
    K,
)
SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"


def armed():
    facts = debian(arguments="quiet crashkernel=384M-:128M")
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=True, crash_size=128 << 20)
    return msgspec.structs.replace(facts, kexec=kexec)


def test_an_armed_host_loses_everything_and_the_capture_kernel_last():
    plan = Pipeline(OFF, K).plan(armed())
    assert [c.step.get("name") or c.step["op"] for c in plan.changes] == [
        "assign", "write", "grub-regenerate", "service-disable", "kdump-unload",
    ]  # fmt: skip
    assert plan.changes[0].step["assignments"] == [["USE_KDUMP", "0"]]
    snippet = plan.changes[1].step["text"]
    assert "crashkernel=*" in snippet and "fadump=*" in snippet and "GRUB_CMDLINE_LINUX_DEFAULT=" in snippet
    assert not snippet.rstrip().endswith('}"')  # nothing is added
    assert plan.reboot and "set aside until the next boot" in plan.reboot_why
    (words,) = plan.boot_expect
    assert "crashkernel=" in words["absent"] and not words["once"] and not words["present"]
    assert plan.expect[-1] == {"kind": "value", "path": "/sys/kernel/kexec_crash_loaded", "value": "0"}


def test_the_host_side_accepts_the_steps():
    from tests.hostside import test_txn_fake  # noqa: F401  (puts module_utils on the path)
    import kdo_txn_doc  # isort: skip

    plan = Pipeline(OFF, K).plan(armed())
    steps, expect = [c.step for c in plan.changes], plan.boot_expect + plan.expect
    kdo_txn_doc.validate({"format_version": "1.0", "id": "ab" * 32, "steps": steps, "expect": expect})


def off() -> "object":
    facts = debian(arguments="quiet")
    text = KDUMP_TOOLS.replace("USE_KDUMP=1", "USE_KDUMP=0")
    services = {n: msgspec.structs.replace(s, enabled="disabled") for n, s in facts.services.items()}
    files: dict[str, FileFact] = {**facts.files, "/etc/default/kdump-tools": file(text)}
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=False, crash_size=0)
    return msgspec.structs.replace(facts, services=services, files=files, kexec=kexec)


def test_nothing_to_do_where_nothing_is_there():
    pipeline = Pipeline(OFF, K)
    assert pipeline.plan(off()).status == "none"
    bare = msgspec.structs.replace(off(), files={}, packages={}, services={})
    assert pipeline.plan(bare).status == "none"


def test_checks():
    pipeline = Pipeline(OFF, K)

    def checked(facts):
        judged = pipeline.judge(facts)
        found = verdict(pipeline.planner, facts, judged.platform, judged.decision)
        return found.status, {c.id: c.verdict for c in found.checks}

    names = ["off-memory", "off-loaded", "off-service", "off-next-boot"]
    assert checked(armed()) == ("fail", dict.fromkeys(names, "fail"))
    assert checked(off()) == ("pass", dict.fromkeys(names, "pass"))


def test_a_load_that_was_locked_is_not_touched():
    facts = armed()
    facts = msgspec.structs.replace(facts, kexec=msgspec.structs.replace(facts.kexec, load_disabled=1))
    plan = Pipeline(OFF, K).plan(facts)
    assert plan.status == "refused" and plan.refusals[0].id == "G5"
