# SPDX-License-Identifier: Apache-2.0
"""Waivers: shape, meaning, days, and what they do to verdicts and plans."""

from datetime import date

import msgspec
import pytest

from orchestrator.checks.base import all_checks
from orchestrator.checks.run import verdict
from orchestrator.checks.waive import plan_host, waive
from orchestrator.documents.verdict import Verdict
from orchestrator.errors import PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.load import load as load_policy
from orchestrator.policy.waivers import Waivers, doubts, load, load_all, parse
from orchestrator.reports.plans import counts, tally
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
    assert refused.status == "refused"
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
        (row(day="soon"), None, "W005", "YYYY-MM-DD"),
        (row(day="20261231"), None, "W005", "YYYY-MM-DD"),
        (row(what="check: kvm-x86"), "w.yaml:5:22", "W003", "write rule: kvm-x86"),
        (row(what="rule: capture-loaded"), "w.yaml:5:21", "W004", "write check: capture-loaded"),
        (row(what="rule: unsupported"), "w.yaml:5:21", "W004", "no rule or refusal"),
        (row().replace("nobody minds it here", "'  meh       '"), None, "W010", "justification says nothing"),
        (row().replace("approver: ann", "approver: '  '"), None, "W010", "approver says nothing"),
        (row(hosts="{features: [nonsense]}"), None, "W007", "nonsense"),
        (row(hosts="{all: [{}]}"), None, "W008", "whatever host"),
        (row(hosts="{any: [{host: web1}, {}]}"), None, "W008", "whatever host"),
        (row(hosts="{host: web1, not: {host: web1}}"), None, "W009", "contradict"),
        (row(hosts="{arch: s390x, hypervisor: hyperv}"), None, "W009", "x86 and arm64 only"),
        (row() + row(), "w.yaml:6:12", "W002", "stands twice"),
        (row(hosts="{hots: web}"), "w.yaml:5:43", "P002", "unknown key 'hots' in spec.waivers.0.hosts"),
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
    told = list(doubts(found.all, TODAY))
    assert {(p.id, p.severity) for p in told} == {("W006", "warning"), ("W011", "warning")}
    assert [p.what for p in told if p.id == "W006"] == ["the waiver 'd' lasts until 2029-01-01"]
    edge = waivers(row("a", day="2027-11-24"), row("b", "check: target", day="2027-11-25"))  # 366 and 367 days
    assert [p.id for p in doubts(edge.all, TODAY)] == ["W006"]
    assert [w.state(TODAY) for w in waivers(row(day="2026-12-23"), row("x", day="2026-12-24")).all] == ["soon", "valid"]


def test_a_day_needs_no_quotes_and_long_text_is_one_line():
    body = row().replace('"', "").replace("nobody minds it here", '"nobody\n  minds it\n  here"')
    (waiver,) = parse(text(body), "w.yaml", K, all_checks(), DEFAULT)
    assert waiver.expires == date(2026, 12, 31) and waiver.justification == "nobody minds it here"


def test_an_override_takes_no_host_and_cannot_be_waived(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: ours}\nspec:\n  extends: [default]\n"
        "  overrides:\n    - {id: small, match: {memory: {below: 2G}}, level: audit}\n"
    )
    with pytest.raises(PolicyError) as e:
        parse(text(row(what="rule: small")), "w.yaml", K, all_checks(), load_policy(path, K))
    assert [(p.id, "override" in p.why) for p in e.value.problems] == [("W004", True)]


def test_everything_that_is_wrong_is_told_at_once():
    body = row(what="check: reservatoin") + row("x", what="rule: kvm-x68", day="2026-02-30") + row("x", hosts="{a: b}")
    with pytest.raises(PolicyError) as e:
        parse(text(body), "w.yaml", K, all_checks(), DEFAULT)
    assert [p.id for p in e.value.problems] == ["W003", "W004", "W005", "W002", "P002"]


def test_two_files_may_not_have_one_id(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(text(row()))
    two.write_text(text(row(hosts="{host: web2}")))
    assert len(load_all([str(one)], K, all_checks(), DEFAULT)) == 1
    with pytest.raises(PolicyError) as e:
        load_all([str(one), str(two)], K, all_checks(), DEFAULT)
    (problem,) = e.value.problems
    assert problem.id == "W002" and problem.where.startswith(str(two)) and str(one) in problem.why


def test_who_signed_the_waivers_stands_with_who_signed_the_policy():
    found = Waivers(parse(text(row(), row("x")), "w.yaml", K, all_checks(), DEFAULT, signer="ann"), TODAY)
    assert found.signed(DEFAULT).signers == ["w.yaml: ann"] and found.signed(DEFAULT).hash == DEFAULT.hash
    assert waivers(row()).signed(DEFAULT).signers == []


def test_reports_count_waived_apart(capsys):
    def host(name, status, waived=0):
        return Verdict(host=name, status=status, waived=waived)

    results = [host("a", "pass"), host("b", "pass", 2), host("c", "fail", 1), host("d", "refused"), host("e", "pass")]
    tally(results)
    said = capsys.readouterr().out
    assert "5 hosts: 3 pass (1 of them with 2 waived checks), 1 fail (1 of them with 1 waived check), 1 refused" in said
    assert counts(results) == {
        "pass": 3, "fail": 1, "refused": 1, "unsupported": 0, "pass_with_waivers": 1, "waived_checks": 3
    }  # fmt: skip


def test_the_example_is_valid():
    path = data_path("policies/examples/waivers.yaml")
    assert [w.id for w in load(str(path), K, all_checks(), DEFAULT)] == ["small-crash-disks", "old-xen-guests"]
