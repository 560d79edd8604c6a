# SPDX-License-Identifier: Apache-2.0
"""Trial, boot, look, default: in that order, and nothing becomes the default where one of them goes wrong."""

import base64
import json
from datetime import UTC, datetime

import msgspec
import pytest

from orchestrator import hostside
from orchestrator.bootloaders import trial_problem
from orchestrator.bootloaders.grub import Grub
from orchestrator.checks import waive as waivers
from orchestrator.documents.facts import GrubConfig
from orchestrator.documents.plan import Rollout
from orchestrator.documents.verdict import Check, Outcome, Verdict
from orchestrator.engine.look import GOOD, after
from orchestrator.fleet import session
from orchestrator.fleet.act import change_document, trial_id
from orchestrator.fleet.collect import Collected
from orchestrator.fleet.runner import Whom
from orchestrator.knowledge.load import knowledge
from orchestrator.planning import steps
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import seal
from orchestrator.policy.load import default_path, load
from tests.builders import debian, file

K = knowledge()
PIPELINE = Pipeline(load(default_path(), K), K)
ONCE = ["save_env next_entry", "if [ -f  ${config_directory}/custom.cfg ]; then"]
NEW = "crashkernel=384M-:128M"
GRUB = Grub()
BLOCK = "### BEGIN kdump-orchestrator trial 01234567 file=new mtime=0 ###\n"


def able(name="web1", **changes):
    """A host whose grub.cfg can boot an entry once."""
    facts = debian(name, **changes)
    grub = msgspec.structs.replace(facts.boot.grub, lines=[*ONCE, *facts.boot.grub.lines])
    return msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=grub))


def planned(facts):
    return PIPELINE.plan(facts)


def document(plan, part):
    return json.loads(base64.b64decode(change_document(plan, "ab" * 32, part)))


def named(change):
    return [s.get("name") or s["op"] + " " + s.get("path", "") for s in change["steps"]]


def crashkernel(plan):
    return next(e for e in plan.boot_expect if "once" in e)["once"]["crashkernel="]


# The plan in two parts.


def test_the_parts_are_the_whole():
    plan = planned(able())
    whole, trial, confirm = (document(plan, part) for part in ("whole", "trial", "confirm"))
    assert named(whole) == [
        "assign /etc/default/kdump-tools",
        "write /etc/default/grub.d/zz-kdump-orchestrator.cfg",
        "grub-regenerate",
    ]
    assert named(trial) == ["assign /etc/default/kdump-tools", "grub-trial"]
    assert named(confirm) == named(whole)[1:]
    assert trial["steps"][-1]["ensure"] == [crashkernel(plan)]
    assert trial["steps"][-1]["remove"] == ["crash_kexec_post_notifiers"]
    assert whole["id"] == confirm["id"] and trial["id"] == confirm["confirms"] == trial_id(whole["id"]) != whole["id"]
    assert confirm["expect"] + trial["expect"] == whole["expect"] and confirm["expect"]
    for change in (whole, trial, confirm):
        hostside.load("kdo_txn_doc").validate(change)


def test_a_plan_that_needs_no_reboot_tries_nothing():
    plan = planned(able())
    assert steps.trial(plan) is not None
    assert steps.trial(msgspec.structs.replace(plan, reboot=False)) is None
    assert steps.trial(msgspec.structs.replace(plan, trial={})) is None


def test_the_plan_says_where_no_trial_is_possible():
    assert planned(able()).notes == []
    (note,) = planned(debian()).notes
    assert note.startswith(steps.NO_TRIAL) and "next_entry" in note and "--no-trial" in note
    for lines, word in ((ONCE[:1], "41_custom"), ([*ONCE, "blscfg"], "blscfg")):
        facts = debian()
        grub = msgspec.structs.replace(facts.boot.grub, lines=[*lines, *facts.boot.grub.lines])
        assert word in GRUB.no_trial(
            msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=grub))
        )


def chosen(facts, entry):
    grub = msgspec.structs.replace(facts.boot.grub, env={"next_entry": entry})
    return msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=grub))


def test_the_plan_says_what_a_trial_left():
    right = able(arguments=crashkernel(planned(able())))
    assert "boot" not in [c.kind for c in planned(right).changes]
    there = msgspec.structs.replace(right, files={**right.files, "/boot/grub/custom.cfg": file(BLOCK)})
    for facts in (there, chosen(right, "kdump-orchestrator-trial-01234567")):
        plan = planned(facts)
        assert plan.notes[0] == "left over: " + GRUB.left_over(facts) and plan.status == "changes"
        (change,) = [c for c in plan.changes if c.kind == "boot"]
        assert change.step == {"op": "action", "name": "grub-regenerate"} and change.why == GRUB.left_over(facts)
        assert steps.trial(plan) is None  # there is nothing to try, only to clean
    assert "already chosen" in GRUB.no_trial(chosen(right, "2")) and not GRUB.left_over(chosen(right, "2"))


def test_what_runs_is_held_against_what_was_tried():
    step = {"name": "grub-trial", "ensure": ["a=1", "b=2", "b=3", "flag"], "remove": ["gone"]}

    def problem(cmdline, **more):
        facts = debian(running=cmdline)
        return trial_problem(step, chosen(facts, more["entry"]) if more else facts)

    assert problem("quiet b=2 a=1 b=3 flag") == ""
    for cmdline in (
        "",
        "a=1 b=2 b=3",
        "a=1 b=3 b=2 flag",
        "a=1 a=1 b=2 b=3 flag",
        "a=1 b=2 b=3 flag gone",
        "a=1 b=2 b=3 flag=1",
    ):
        assert "not started from the trial" in problem(cmdline), cmdline
    assert "did not clear" in problem("b=2 a=1 b=3 flag", entry="kdump-orchestrator-trial-01234567")


# The order of things on hosts.


class World:
    """Stands in for Ansible. ``trouble``: host → what goes wrong there."""

    def __init__(self, monkeypatch, facts, **trouble):
        self.facts = {f.host: f for f in facts}
        self.trouble, self.log = trouble, []
        for name in ("transact", "from_hosts"):
            monkeypatch.setattr(session, name, getattr(self, name))
        monkeypatch.setattr(waivers, "verdict", self.verdict)
        monkeypatch.setattr(session, "reboot_hosts", self.reboot)
        monkeypatch.setattr(session, "roll_back_hosts", self.rollback)

    def transact(self, _whom, work, _hash, *, check=False, progress=None, part="whole"):
        out = []
        for plan in work:
            self.log.append((plan.host, f"check {part}" if check else part))
            bad = self.trouble.get(plan.host) == f"{part} fails"
            error = {"what": "step 1 failed", "why": "because", "fix": "x"} if bad else None
            state = "undone" if bad else "check" if check else "committed"
            out.append(Outcome(host=plan.host, state=state, steps=[{"what": part}], transaction=part, error=error))
            self.facts[plan.host] = self.changed(plan, part)
        return out

    def changed(self, plan, part):
        facts = self.facts[plan.host]
        if part == "confirm":
            return msgspec.structs.replace(facts, boot=able(arguments=crashkernel(plan)).boot)
        return facts

    def reboot(self, _whom, hosts, *, progress=None, once=False):
        answers = {}
        for host in hosts:
            self.log.append((host, "boot once" if once else "boot"))
            lost = self.trouble.get(host) in ("lost", "lost for long")
            answers[host] = "timed out" if lost else ""
            if not lost and self.trouble.get(host) != "old arguments":
                plan = planned(self.facts[host])
                cmdline = f"root=/dev/vda1 ro {crashkernel(plan)}"
                kernel = msgspec.structs.replace(self.facts[host].kernel, cmdline=cmdline)
                self.facts[host] = msgspec.structs.replace(self.facts[host], kernel=kernel)
        return answers

    def rollback(self, _whom, hosts, *, progress=None):
        self.log += [(host, "rollback") for host in hosts]
        answers = {"lost for long": "unreachable", "stuck": "undo-incomplete"}
        return [Outcome(host=h, state=answers.get(self.trouble.get(h, ""), "rolled-back")) for h in hosts]

    def from_hosts(self, _whom, _targets, hosts):
        self.log += [(host, "look") for host in hosts]
        return Collected([self.facts[h] for h in hosts if self.trouble.get(h) != "silent"], [])

    def verdict(self, _planner, facts, _platform, _decision):
        confirmed = any(NEW.partition("=")[0] in line for line in facts.boot.grub.lines)
        checks = [Check(id="next-boot", title="", verdict="pass" if confirmed else "fail", evidence="")]
        if self.trouble.get(facts.host) in ("bad", "stuck"):
            checks.append(Check(id="capture-loaded", title="", verdict="fail", evidence="kexec_crash_loaded is 0"))
        bad = any(c.verdict == "fail" for c in checks)
        return Verdict(host=facts.host, status="fail" if bad else "pass", checks=checks)

    def of(self, host):
        return [what for name, what in self.log if name == host]


def run(monkeypatch, hosts=("h0",), rollout=None, change=None, **options):
    trouble = options.pop("trouble", {})
    facts = [able(h) for h in hosts]
    world = World(monkeypatch, facts, **trouble)
    plan = seal(PIPELINE.policy, [planned(f) for f in facts])
    if change:
        plan = msgspec.structs.replace(plan, hosts=[change(h) for h in plan.hosts])
    plan = msgspec.structs.replace(plan, rollout=rollout or Rollout())
    return world, session.Run(PIPELINE, Whom(("x,",)), plan, **options).apply(Collected(facts, []))


def test_the_way_of_a_good_host(monkeypatch):
    world, out = run(monkeypatch, reboot=True)
    assert world.of("h0") == ["trial", "boot once", "look", "confirm", "look"]
    (outcome,) = out.outcomes
    assert outcome.state == "committed" and outcome.rebooted and outcome.changed and outcome.transaction == "confirm"
    assert [s["what"] for s in outcome.steps] == ["trial", "confirm"]
    assert out.verdicts[-1].status == "pass" and not out.pending_reboot


def test_without_reboot_or_with_no_trial_it_is_as_it_was(monkeypatch):
    world, out = run(monkeypatch)
    assert world.of("h0") == ["whole"] and out.pending_reboot == ["h0"]
    world, out = run(monkeypatch, reboot=True, trial=False)
    assert world.of("h0") == ["whole", "boot", "look"]


def test_check_checks_the_trial(monkeypatch):
    world, _ = run(monkeypatch, reboot=True, check=True)
    assert world.of("h0") == ["check trial"]
    world, _ = run(monkeypatch, check=True)
    assert world.of("h0") == ["check whole"]


@pytest.mark.parametrize(
    ("trouble", "way", "state", "what", "fix"),
    [
        ("trial fails", ["trial"], "undone", "step 1 failed", "x"),
        ("lost", ["trial", "boot once", "rollback"], "undone", "did not come back", "nothing became the default"),
        ("lost for long", ["trial", "boot once", "rollback"], "failed", "did not come back", "Reset it, then kdo rollback"),
        ("silent", ["trial", "boot once", "look", "rollback"], "undone", "cannot be looked at", "everything is as before"),
        ("old arguments", ["trial", "boot once", "look", "rollback"], "undone", "does not run", "everything is as before"),
        ("bad", ["trial", "boot once", "look", "rollback"], "undone", "failed their trial", "until its next reboot"),
        ("stuck", ["trial", "boot once", "look", "rollback"], "undo-incomplete", "failed their trial", "kdo rollback"),
        ("confirm fails", ["trial", "boot once", "look", "confirm", "rollback"], "undone", "could not be made the default",
         "until its next reboot"),
    ],
)  # fmt: skip
def test_nothing_becomes_the_default_where_something_is_wrong(monkeypatch, trouble, way, state, what, fix):
    world, out = run(monkeypatch, ("h0", "h1"), reboot=True, trouble={"h0": trouble})
    assert world.of("h0") == way
    bad, good = out.outcomes
    assert (bad.host, bad.state) == ("h0", state) and what in bad.error["what"] and fix in bad.error["fix"]
    assert good.state == "committed" and world.of("h1")[-1] == "look"  # one host's trouble is not another's
    if trouble == "bad":
        assert "capture-loaded: kexec_crash_loaded is 0" in bad.error["why"] and "next-boot" not in bad.error["why"]
        assert [v.status for v in out.verdicts if v.host == "h0"] == ["fail"]


def test_a_failed_trial_counts_for_the_rollout(monkeypatch):
    _, out = run(monkeypatch, ("h0", "h1"), reboot=True, trouble={"h0": "old arguments"})
    results = {o.host: after(o, None, pending=False).result or "fine" for o in out.outcomes}
    assert results["h0"] not in GOOD and results == {"h0": "undone", "h1": "fine"}


def test_a_host_that_may_not_be_rebooted_now_is_left_alone(monkeypatch):
    monday = datetime(2026, 11, 23, 3, tzinfo=UTC)

    def later(host):
        return msgspec.structs.replace(host, reboot_allowed="window", reboot_windows=["Sat 02:00-05:00"])

    world, out = run(monkeypatch, change=later, reboot=True, clock=lambda: monday)
    assert world.log == [] and out.pending_reboot == ["h0"] and "windows" in out.reboot_held["h0"]
    assert [o.state for o in out.outcomes] == ["nothing"]


def test_a_trial_that_waits_is_not_taken_for_the_default():
    facts = able()
    grub = GrubConfig(
        path=facts.boot.grub.path, lines=facts.boot.grub.lines, env={"next_entry": "kdump-orchestrator-trial-1"}
    )
    facts = msgspec.structs.replace(facts, boot=msgspec.structs.replace(facts.boot, grub=grub))
    assert [c.kind for c in planned(facts).changes] == [c.kind for c in planned(able()).changes]
