# SPDX-License-Identifier: Apache-2.0
"""Waivers: shape, meaning, days, and what they do to verdicts and plans."""

from datetime import date

import msgspec
import pytest

from orchestrator.checks.base import all_checks
from orchestrator.checks.run import verdict
from orchestrator.checks.waive import plan_host, waive
from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import load as load_policy
from orchestrator.policy.waivers import Waivers, doubts, load, parse
from orchestrator.resources import data_path
from tests.builders import debian

K = knowledge()
DEFAULT = load_policy("default", K)
PIPELINE = Pipeline(DEFAULT, K)
HEAD = "apiVersion: kdump-orchestrator/v1\nkind: Waivers\nspec:\n  waivers:\n"
TODAY = date(2026, 11, 23)
ROW = (
    '    - {{id: {id}, {what}, hosts: {hosts}, justification: nobody minds it here, approver: ann, expires: "{day}"}}\n'
)


def text(*rows):
    return HEAD + "".join(rows) if rows else HEAD.replace("waivers:", "waivers: []")


def row(id="w", what="check: reservation", hosts="{host: web1}", day="2026-12-31"):
    return ROW.format(id=id, what=what, hosts=hosts, day=day)


def waivers(*rows, today=TODAY):
    return Waivers(parse(text(*rows), "w.yaml", K, all_checks(), DEFAULT), today)


def judged(found, facts=None):
    j = PIPELINE.judge(facts or debian())
    return waive(verdict(PIPELINE.planner, j.facts, j.platform, j.decision), j, found, K.features)


def states(v):
    return {c.id: c.verdict for c in v.checks}


def test_a_waived_check_is_counted_apart_and_names_who_and_until_when():
    before = judged(waivers())
    failing = [id for id, state in states(before).items() if state in ("fail", "unknown")]
    assert "reservation" in failing and before.status == "fail" and before.waived == 0
    v = judged(waivers(row()))
    check = next(c for c in v.checks if c.id == "reservation")
    assert check.verdict == "waived" and "until 2026-12-31 by ann (w: nobody minds it here)" in check.evidence
    assert v.waived == 1 and v.status == "fail"  # the others still fail
    every = judged(waivers(*(row(f"w{n}", f"check: {id}") for n, id in enumerate(failing))))
    assert every.status == "pass" and every.waived == len(failing)


def test_the_last_day_counts_and_the_day_after_it_fails_again():
    assert states(judged(waivers(row(day="2026-11-23"))))["reservation"] == "waived"
    v = judged(waivers(row(day="2026-11-22")))
    check = next(c for c in v.checks if c.id == "reservation")
    assert (
        check.verdict == "fail" and "the waiver w of ann has expired on 2026-11-22" in check.evidence and v.waived == 0
    )


def test_other_hosts_and_unknown_hosts_are_not_waived():
    assert states(judged(waivers(row(hosts="{host: web2}"))))["reservation"] == "fail"
    found = waivers(row(hosts="{memory: {min: 1G}}"))
    facts = debian(memory=msgspec.structs.replace(debian().memory, total=None, system_ram=None))
    assert states(judged(found, facts))["reservation"] != "waived"
    assert [w.id for w in waivers(row()).unused()] == ["w"]
    found = waivers(row(), row("x", hosts="{host: web2}"))
    judged(found)
    assert [w.id for w in found.unused()] == ["x"]


def test_of_two_the_one_that_counts_longer():
    found = waivers(row("old", day="2026-01-01"), row("new", day="2026-12-01"))
    assert "(new:" in next(c for c in judged(found).checks if c.id == "reservation").evidence


def container():
    facts = debian()
    marks = msgspec.structs.replace(facts.signals.container, pid_ns="pid:[4026532000]", markers=["/.dockerenv"])
    return msgspec.structs.replace(facts, signals=msgspec.structs.replace(facts.signals, container=marks))


def test_a_refusal_and_a_rule_can_be_waived():
    facts = container()
    refused = judged(waivers(), facts)
    if refused.status != "refused":
        pytest.skip("the builder's host is not seen as a container")
    ids = [c.id for c in refused.checks]
    rows = [row(f"w{n}", f"rule: {id}") for n, id in enumerate(ids)]
    v = judged(waivers(*rows), facts)
    assert v.status == "pass" and v.waived == len(ids)
    assert plan_host(PIPELINE, facts, waivers(*rows)).status == "waived"
    if len(ids) > 1:
        assert plan_host(PIPELINE, facts, waivers(rows[0])).status == "refused"  # the other refusal stands


def test_a_plan_of_a_waived_rule_does_nothing():
    plan = plan_host(PIPELINE, debian(), waivers(row(what="rule: kvm-x86")))
    assert (plan.status, plan.changes, plan.reboot, plan.action) == ("waived", [], False, "none")
    assert any("waived until 2026-12-31 by ann" in note for note in plan.notes)
    late = plan_host(PIPELINE, debian(), waivers(row(what="rule: kvm-x86", day="2026-11-01")))
    assert late.status == "changes" and any("expired on 2026-11-01" in note for note in late.notes)
    assert plan_host(PIPELINE, debian(), waivers()) == PIPELINE.plan(debian())


@pytest.mark.parametrize(
    ("body", "where", "id", "words"),
    [
        (row().replace(", approver: ann", ""), "w.yaml:5:7", "P003", "lacks 'approver'"),
        (row().replace("nobody minds it here", "meh"), None, "P007", "too short"),
        (row(hosts="{}"), None, "P007", ""),
        (row(what="check: reservatoin"), "w.yaml:5:22", "W003", "did you mean 'reservation'"),
        (row(what="rule: kvm-x68"), "w.yaml:5:21", "W004", "did you mean 'kvm-x86'"),
        (row(day="2026-02-30"), None, "W005", "not a day"),
        (row(day="soon"), None, "P007", ""),
        (row() + row(), "w.yaml:6:12", "W002", "stands twice"),
        (row(hosts="{hots: web}"), None, "P002", "did you mean 'host'"),
        (row(hosts="{arch: amd64}"), None, "P005", "not allowed"),
        (row(what="check: target, rule: kvm-x86"), None, "P004", "both"),
        ("    - [\n", None, "W001", ""),
    ],
)
def test_mistakes_end_everything_with_a_place(body, where, id, words):
    with pytest.raises(PolicyError) as e:
        parse(text(body), "w.yaml", K, all_checks(), DEFAULT)
    problem = e.value.problems[0]
    assert problem.id == id and words in " ".join(problem.lines()), problem
    assert problem.where.startswith("w.yaml:") and (where is None or problem.where == where)


def test_states_and_doubts():
    found = waivers(
        row("a", day="2026-12-20"), row("b", day="2027-03-01"), row("c", day="2026-01-01"), row("d", day="2029-01-01")
    )
    assert [w.state(TODAY) for w in found.all] == ["soon", "valid", "expired", "valid"]
    assert [(p.id, p.severity) for p in doubts(found.all, TODAY)] == [("W006", "warning")]


def test_the_example_is_valid():
    path = data_path("policies/examples/waivers.yaml")
    assert [w.id for w in load(str(path), K, all_checks(), DEFAULT)] == ["small-crash-disks", "old-xen-guests"]
