# SPDX-License-Identifier: Apache-2.0
"""The whole way of a pull: a signed bundle, a host as a tree of files, and what comes of it."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent import pull as module
from orchestrator.agent.look import Me, Seen
from orchestrator.agent.pull import Way, delay, machine_id, pull, reboot_now, remembered, wait
from orchestrator.agent.record import alone, recall, record_path
from orchestrator.documents.base import pretty
from orchestrator.documents.verdict import Check, Outcome, Verdict
from orchestrator.errors import Exit, InvalidInput, KdoError
from orchestrator.fleet import session
from orchestrator.fleet.collect import Collected
from orchestrator.fleet.runner import Whom, run_playbook
from orchestrator.knowledge.load import knowledge
from tests.builders import debian

K = knowledge()
NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


@pytest.fixture
def way(desk, tree, tmp_path):
    def make(source=None, **more) -> Way:
        return Way(str(source or desk.folder / "FLEET.bundle"), str(desk.allowed), tree, tmp_path / "state",
                   **{"clock": lambda: NOW, **more})  # fmt: skip

    return make


def refused(result, what: str, code: Exit = Exit.INVALID) -> None:
    assert result.code == code and what in result.problems[0].what, result.problems
    assert result.report.verdict is None and result.report.problems[0].what == result.problems[0].what


def test_a_signed_bundle_judges_the_host(desk, way, tmp_path):
    desk.bundle(serial=5, waivers=True, expires=date(2026, 11, 24))
    result = pull(way(), K)
    assert result.code == Exit.PENDING and not result.problems
    report = result.report
    assert (report.bundle.serial, report.bundle.policy, report.bundle.signer) == (5, "fleet", "ann@example.org")
    assert report.plan.status == "changes" and report.outcome is None and report.facts.host == "web1"
    assert [c.id for c in report.verdict.checks if c.verdict == "waived"] == ["target"]  # by this host's name
    record = recall(tmp_path / "state")
    assert (record.serial, record.at) == (5, "2026-11-24T03:00:00Z")
    assert stat.S_IMODE(record_path(tmp_path / "state").stat().st_mode) == 0o600
    assert pull(way(), K).report == report  # the same again


def test_what_does_not_count(desk, way, tmp_path):
    path = desk.bundle(serial=5)
    good, signature = path.read_bytes(), (desk.folder / "FLEET.bundle.sig").read_bytes()
    path.write_bytes(good.replace(b'"serial": 5', b'"serial": 6'))
    refused(pull(way(), K), "changed after it was signed")
    path.write_bytes(good[:-20])
    refused(pull(way(), K), "changed after it was signed")
    path.write_bytes(good)
    desk.key("eve", allow=False)
    desk.sign(path, "eve")
    refused(pull(way(), K), "signed by nobody whose signature counts")
    (desk.folder / "FLEET.bundle.sig").write_bytes(b"x")
    refused(pull(way(), K), "the signature is not one")
    (desk.folder / "FLEET.bundle.sig").unlink()
    refused(pull(way(), K), "the signature cannot be read")
    (desk.folder / "FLEET.bundle.sig").write_bytes(signature)
    path.write_bytes(b" " * ((4 << 20) + 1))
    refused(pull(way(), K), "too large")
    path.unlink()
    refused(pull(way(), K), "the bundle cannot be read")
    assert not record_path(tmp_path / "state").exists()  # nothing of that was noted


def test_messages_name_where_it_came_from(desk, way):
    path = desk.bundle()
    path.write_bytes(path.read_bytes() + b"\n")
    (problem,) = pull(way(), K).problems
    assert problem.where == str(path) and "kdo-" not in problem.why + problem.fix


def test_an_expired_one_is_refused(desk, way):
    desk.bundle(expires=date(2026, 11, 23))
    refused(pull(way(), K), "the bundle 1 has expired")
    assert pull(way(clock=lambda: NOW - timedelta(days=1)), K).code == Exit.PENDING


def test_an_older_one_is_refused_for_ever(desk, way, tmp_path):
    desk.bundle(serial=7)
    assert pull(way(), K).code == Exit.PENDING
    desk.bundle(serial=6)
    result = pull(way(), K)
    refused(result, "the bundle 6 is older than one that this host has seen")
    assert "2026-11-24" in result.problems[0].why and result.report.bundle.serial == 6
    desk.bundle(serial=7, any_tool=True)
    refused(pull(way(), K), "another bundle 7")
    assert recall(tmp_path / "state").serial == 7
    desk.bundle(serial=8)
    assert pull(way(), K).report.bundle.serial == 8


@given(st.lists(st.integers(1, 9), max_size=12))
def test_the_serial_never_goes_back(serials):
    from orchestrator.agent.pull import Got, _noted, admit
    from orchestrator.agent.record import PullRecord
    from orchestrator.documents.bundle import Bundle

    record, taken = PullRecord(), [0]
    for serial in serials:
        bundle = Bundle(serial=serial, policy="default")
        got = Got(pretty(bundle), b"", "ann")
        try:
            admit(bundle, got, record, NOW, "x")
        except InvalidInput:
            assert serial < record.serial
            continue
        record = _noted(bundle, got, record, "x", NOW)
        taken.append(record.serial)
    assert taken == sorted(taken) and record.serial == max([0, *serials])


def test_a_damaged_record_forgets_nothing(desk, way, tmp_path):
    desk.bundle()
    (tmp_path / "state").mkdir()
    for data in ("", "{", '{"serial": "x"}', '{"kind": "Other"}', '{"format_version": "2.0"}'):
        record_path(tmp_path / "state").write_text(data)
        result = pull(way(), K)
        refused(result, "the record")
        assert record_path(tmp_path / "state").read_text() == data


def test_two_at_a_time_are_one(desk, way, tmp_path):
    desk.bundle()
    with alone(tmp_path / "state"):
        refused(pull(way(), K), "another pull is running", Exit.INTERNAL)
    (tmp_path / "file").write_text("")
    refused(pull(replace(way(), state=tmp_path / "file/state"), K), "the record of serials cannot be kept")


# ---------------------------------------------------------------------- by https


def give(desk, server, **more) -> None:
    path = desk.bundle(**more)
    server.files = {
        "/FLEET.bundle": path.read_bytes(),
        "/FLEET.bundle.sig": (desk.folder / "FLEET.bundle.sig").read_bytes(),
    }


def test_by_https_it_is_taken_once(desk, way, server):
    give(desk, server)
    there = way(f"{server.url}/FLEET.bundle", ca=server.ca)
    first, second = pull(there, K), pull(there, K)
    assert first.code == Exit.PENDING and second.report == first.report
    assert [a[2] for a in server.asked] == [200, 200, 304, 304]
    give(desk, server, serial=2)
    assert pull(there, K).report.bundle.serial == 2
    desk.key("bob")
    server.files["/FLEET.bundle.sig"] = (
        desk.sign(desk.folder / "FLEET.bundle", "bob").with_name("FLEET.bundle.sig").read_bytes()
    )
    again = pull(there, K)  # the same bundle, signed by another one
    assert again.report.bundle.signer == "bob@example.org" and [a[2] for a in server.asked[-2:]] == [304, 200]


def test_a_remembered_bundle_needs_a_signer_that_still_counts(desk, way, server):
    give(desk, server)
    there = way(f"{server.url}/FLEET.bundle", ca=server.ca)
    assert pull(there, K).code == Exit.PENDING
    desk.allowed.write_text("")
    refused(pull(there, K), "signed by nobody whose signature counts")


def test_a_server_that_is_not_there_or_not_it(desk, way, server):
    give(desk, server)
    refused(pull(way(f"{server.url}/FLEET.bundle"), K), "certificate does not count", Exit.UNREACHABLE)
    refused(pull(way("https://127.0.0.1:9/x"), K), "cannot be reached", Exit.UNREACHABLE)
    refused(pull(way(f"{server.url}/other", ca=server.ca), K), "the server says no", Exit.UNREACHABLE)
    server.answers = [304]
    refused(pull(way(f"{server.url}/FLEET.bundle", ca=server.ca), K), "makes no sense", Exit.UNREACHABLE)
    server.files["/FLEET.bundle"] = b"x" * ((4 << 20) + 1)
    refused(pull(way(f"{server.url}/FLEET.bundle", ca=server.ca), K), "too large")
    refused(pull(way("http://example.org/x"), K), "this address is not asked")


def test_the_watch_takes_the_same_orders(desk, way, tmp_path):
    with pytest.raises(InvalidInput, match="no bundle yet"):
        remembered(tmp_path / "state", str(desk.allowed), K, NOW)
    desk.bundle(serial=3, expires=date(2026, 11, 24))
    pull(way(), K)
    orders = remembered(tmp_path / "state", str(desk.allowed), K, NOW)
    assert (orders.policy.serial, list(orders.problems)) == (3, [])
    late = remembered(tmp_path / "state", str(desk.allowed), K, NOW + timedelta(days=1))
    assert "has expired" in late.problems[0].what


# ---------------------------------------------------------------------- acting


class World:
    """Stands for what changes the host: there is none here that may be changed. Everything before and after is real."""

    def __init__(self, monkeypatch, state="committed"):
        self.state, self.log = state, []
        facts = debian("web1")

        def look(who, orders, now):
            found = orders.pipeline.judge(facts)
            plan = orders.pipeline.planner.plan_host(facts, found.platform, found.decision)
            return Seen(
                facts,
                msgspec.structs.replace(plan, **self.plan),
                Verdict(host="web1", status="pass" if self.log else "fail", state="wanted"),
            )

        self.plan = {}
        monkeypatch.setattr(module, "look", look)
        monkeypatch.setattr(session, "transact", self.transact)
        monkeypatch.setattr(session, "from_hosts", lambda *_a, **_k: Collected([facts]))
        checks = [Check(id="x", title="", verdict="pass", evidence="")]
        monkeypatch.setattr(session, "judge_host", lambda *_a: Verdict(host="web1", status="pass", checks=checks))

    def transact(self, whom, hosts, _hash, **_more):
        self.log.append((whom.name, [h.host for h in hosts]))
        return [
            Outcome(
                host=h.host,
                state=self.state,
                changed=True,
                error=None if self.state == "committed" else {"what": "step 1 failed", "why": "w", "fix": "f"},
            )
            for h in hosts
        ]


def test_apply_acts_on_what_is_to_be_changed_only(desk, way, monkeypatch):
    desk.bundle()
    world = World(monkeypatch)
    assert pull(way(), K).report.outcome is None and world.log == []
    result = pull(way(apply=True), K)
    assert world.log == [("web1", ["web1"])]
    assert result.report.outcome.state == "committed" and result.code == Exit.PENDING and not result.reboot
    assert result.report.pending_reboot == "--reboot was not given"
    assert result.report.verdict.status == "pass"  # of a look after the transaction, not of the one before
    for status in ("audit", "refused", "none", "waived", "unsupported"):
        world.plan, world.log = {"status": status}, []
        assert pull(way(apply=True), K).report.outcome is None and world.log == []
    world.plan, world.log = {"reboot": False}, []
    result = pull(way(apply=True), K)
    assert result.code == Exit.OK and result.report.verdict.status == "pass" and not result.report.pending_reboot


@pytest.mark.parametrize("state", ["failed", "undone", "undo-incomplete", "refused"])
def test_a_failed_transaction_is_told(desk, way, monkeypatch, state):
    desk.bundle()
    World(monkeypatch, state)
    result = pull(way(apply=True, reboot=True), K)
    assert result.code == Exit.FAILED and not result.reboot
    assert result.report.problems[0].what == "step 1 failed" and result.report.outcome.state == state


def test_it_reboots_when_it_may_and_not_for_ever(desk, way, monkeypatch, tmp_path):
    desk.bundle()
    world = World(monkeypatch)
    world.plan = {"reboot_allowed": "never"}
    result = pull(way(apply=True, reboot=True), K)
    assert not result.reboot and result.report.pending_reboot == "the policy allows no reboot of this host"
    world.plan = {"reboot_allowed": "window", "reboot_windows": ["Sat 02:00-05:00"]}  # it is a Tuesday
    assert "windows" in pull(way(apply=True, reboot=True), K).report.pending_reboot
    world.plan = {}
    result = pull(way(apply=True, reboot=True), K)
    assert result.reboot and result.report.pending_reboot == "now" and result.code == Exit.PENDING
    assert recall(tmp_path / "state").rebooted == {"wanted": "2026-11-24T03:00:00Z"}
    hour = NOW + timedelta(hours=1)
    result = pull(way(apply=True, reboot=True, clock=lambda: hour), K)
    assert not result.reboot and "not again within 24 hours" in result.report.pending_reboot
    day = NOW + timedelta(hours=25)
    assert pull(way(apply=True, reboot=True, clock=lambda: day), K).reboot


def test_a_reboot_that_cannot_be_ordered_is_said():
    reboot_now(("true",))
    for command in (("false",), ("/no/such/command",)):
        with pytest.raises(KdoError, match="could not be ordered"):
            reboot_now(command)


def test_this_machine_has_its_name_and_groups_with_ansible_too():
    answers = run_playbook(
        "detect.yml", Whom(name="web1", groups=("db", "edge")), variables={"kdo_targets": ["/var/crash"]}
    )
    assert list(answers) == ["web1"] and answers["web1"].status == "ok", answers
    facts = answers["web1"].result["kdo_facts"]
    assert facts["host"] == "web1" and facts["inventory"]["groups"] == ["db", "edge"]


# ---------------------------------------------------------------------- splay


def test_a_fleet_does_not_arrive_at_once():
    found = sorted(delay(600, f"machine-{n}") for n in range(10_000))
    assert found[0] >= 0 and found[-1] < 600
    tenths = [sum(60 * k <= d < 60 * (k + 1) for d in found) for k in range(10)]
    assert min(tenths) > 850 and max(tenths) < 1150
    assert delay(600, "a") == delay(600, "a") and delay(0, "a") == 0


def test_each_machine_waits_its_part(tmp_path):
    slept = []
    assert machine_id(str(tmp_path)) == ""
    named = wait(100, Me("a", (), str(tmp_path)), slept.append)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("3d12\n")
    assert machine_id(str(tmp_path)) == "3d12"
    assert wait(100, Me("a", (), str(tmp_path)), slept.append) != named and slept[0] == named
    assert wait(0, Me("a", (), str(tmp_path)), slept.append) == 0 and len(slept) == 2


def test_nothing_of_the_host_is_written_without_apply(desk, way, tree, tmp_path):
    from tests.fleet.test_record_and_dry_run import picture

    desk.bundle()
    before = picture(tree.root)
    pull(way(), K)
    assert picture(tree.root) == before
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["pull.json"]
    assert json.loads(record_path(tmp_path / "state").read_text())["kind"] == "PullRecord"
