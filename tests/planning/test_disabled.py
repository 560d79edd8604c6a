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


def policy(default):
    text = f"apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {{name: t}}\nspec:\n  default: {default}\n"
    return parse(text, "t.yaml", K)


OFF = policy("{disable: a baseline asks for it}")
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


def masking(default):
    return Pipeline(policy(default), K)


def service_steps(plan):
    return [c.step["op"] for c in plan.changes if c.kind == "service"]


def checked(pipeline, facts):
    judged = pipeline.judge(facts)
    found = verdict(pipeline.planner, facts, judged.platform, judged.decision)
    return found.status, {c.id: c.verdict for c in found.checks}


def with_service(facts, **state):
    found = {n: msgspec.structs.replace(s, **state) for n, s in facts.services.items()}
    return msgspec.structs.replace(facts, services=found)


def test_a_policy_that_manages_masks_masks_and_unmasks():
    off, on = (
        masking("{disable: x, settings: {mask: manage}}"),
        masking("{strategy: [kdump_reset], settings: {mask: manage}}"),
    )
    masked = with_service(armed(), enabled="masked", load="masked")
    disabled = with_service(armed(), enabled="disabled", load="loaded")
    absent = with_service(armed(), enabled="", load="not-found")
    enabled = with_service(armed(), enabled="enabled", load="loaded")
    assert service_steps(off.plan(enabled)) == ["service-disable", "service-mask"]
    assert service_steps(off.plan(disabled)) == ["service-mask"]
    assert service_steps(off.plan(masked)) == service_steps(off.plan(absent)) == []
    assert service_steps(on.plan(masked)) == ["service-unmask", "service-enable"]
    assert service_steps(on.plan(enabled)) == [] and service_steps(on.plan(disabled)) == ["service-enable"]
    for pipeline, facts, expected in (
        (off, enabled, "fail"),
        (off, disabled, "fail"),
        (off, masked, "pass"),
        (off, absent, "pass"),
    ):
        assert checked(pipeline, facts)[1]["off-mask"] == expected


def test_a_mask_that_is_nobodys_business_refuses_the_host_before_it_is_touched():
    on, masked = masking("{strategy: [kdump_reset]}"), with_service(armed(), enabled="masked", load="masked")
    plan = on.plan(masked)
    assert plan.status == "refused" and plan.changes == [] and [r.id for r in plan.refusals] == ["service-masked"]
    assert "settings.mask: manage" in plan.refusals[0].fix
    assert service_steps(masking("{disable: x}").plan(masked)) == []
    assert checked(masking("{disable: x}"), masked)[1]["off-mask"] == "skip"


def test_the_host_side_accepts_the_steps():
    from tests.hostside import test_txn_fake  # noqa: F401  (puts module_utils on the path)
    import kdo_txn_doc  # isort: skip

    plan = Pipeline(OFF, K).plan(armed())
    steps, expect = [c.step for c in plan.changes], plan.boot_expect + plan.expect
    kdo_txn_doc.validate({"format_version": "1.0", "id": "ab" * 32, "steps": steps, "expect": expect})


def off() -> "object":
    facts = debian(arguments="quiet")
    text = KDUMP_TOOLS.replace("USE_KDUMP=1", "USE_KDUMP=0")
    files: dict[str, FileFact] = {**facts.files, "/etc/default/kdump-tools": file(text)}
    kexec = msgspec.structs.replace(facts.kexec, crash_loaded=False, crash_size=0)
    return with_service(msgspec.structs.replace(facts, files=files, kexec=kexec), enabled="disabled")


def test_nothing_to_do_where_nothing_is_there():
    pipeline = Pipeline(OFF, K)
    assert pipeline.plan(off()).status == "none"
    bare = msgspec.structs.replace(off(), files={}, packages={}, services={})
    assert pipeline.plan(bare).status == "none"


def test_checks():
    pipeline = Pipeline(OFF, K)
    names = ["off-memory", "off-loaded", "off-service", "off-next-boot"]
    assert checked(pipeline, armed()) == ("fail", {**dict.fromkeys(names, "fail"), "off-mask": "skip"})
    assert checked(pipeline, off()) == ("pass", {**dict.fromkeys(names, "pass"), "off-mask": "skip"})


def test_a_load_that_was_locked_is_not_touched():
    facts = armed()
    facts = msgspec.structs.replace(facts, kexec=msgspec.structs.replace(facts.kexec, load_disabled=1))
    plan = Pipeline(OFF, K).plan(facts)
    assert plan.status == "refused" and plan.refusals[0].id == "G5"
