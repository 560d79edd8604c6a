# SPDX-License-Identifier: Apache-2.0
"""Waves, gates and reboot windows."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.checks import waive as waivers
from orchestrator.documents.plan import Change, HostPlan, Rollout
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.fleet import session
from orchestrator.fleet.collect import Collected
from orchestrator.fleet.rollout import Member, arrange, closed, in_window, may_reboot
from orchestrator.fleet.runner import Whom
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import seal
from orchestrator.platforms.classify import classify
from orchestrator.policy.load import default_path, load
from tests.builders import debian

K = knowledge()
SHARE = st.one_of(st.integers(0, 40).map(str), st.integers(0, 100).map(lambda n: f"{n}%"))


def plans(count):
    facts = [debian(f"h{i:03d}") for i in range(count)]
    return [
        HostPlan(host=f.host, fingerprint=fingerprint(f, classify(f)), status="changes", platform="", rule="", strategy="kdump_reset", reboot=True)
        for f in facts
    ], facts  # fmt: skip


def members(count, zones=("",), groups=()):
    return [Member(f"h{i:03d}", groups if i % 5 == 0 else (), [f"zone={zones[i % len(zones)]}"]) for i in range(count)]


ROLLOUT = st.builds(
    Rollout,
    waves=st.lists(SHARE, max_size=6),
    canary=st.lists(st.sampled_from(["h00*", "group:first", "tag:zone=b", "nobody"]), max_size=2),
    by=st.sampled_from(["", "zone", "rack", "group:f*", "group:none"]),
)


@given(st.integers(0, 60), ROLLOUT)
def test_every_host_is_in_exactly_one_wave_and_no_wave_is_empty(count, rollout):
    hosts = members(count, ("a", "b", ""), ("first",))
    found = arrange(hosts, rollout)
    assert sorted(h for wave in found for h in wave.hosts) == [m.host for m in hosts] and all(w.hosts for w in found)
    if rollout.by == "zone":
        zone = {m.host: m.label("zone") for m in hosts}
        assert all(len({zone[h] for h in w.hosts}) == 1 for w in found if w.name != "canary")
    if rollout.canary and not rollout.by and rollout.waves and found:
        named = {m.host for m in hosts if _is_canary(m, rollout)}
        assert not named or set(found[0].hosts) == named


def _is_canary(member, rollout):
    return any(
        {"h00*": member.host.startswith("h00"), "group:first": "first" in member.groups, "tag:zone=b": "zone=b" in member.tags}.get(c)
        for c in rollout.canary
    )  # fmt: skip


def sizes(count, rollout):
    return [(w.name, len(w.hosts)) for w in arrange(members(count, ("b", "a")), rollout)]


def test_canary_then_ten_percent_then_all():
    assert sizes(100, Rollout(waves=["1", "10%", "100%"])) == [("", 1), ("", 9), ("", 90)]
    assert sizes(3, Rollout(waves=["1", "10%"])) == [("", 1), ("", 2)]
    assert sizes(5, Rollout()) == [("", 5)]


def test_zone_after_zone():
    rollout = Rollout(waves=["2", "50%", "100%"], by="zone")
    assert sizes(20, rollout) == [("canary", 2), ("zone=a", 4), ("zone=a", 4), ("zone=b", 5), ("zone=b", 5)]
    assert sizes(4, Rollout(canary=["h003"], by="zone")) == [("canary", 1), ("zone=a", 1), ("zone=b", 2)]
    assert sizes(4, Rollout(by="rack")) == [("no rack", 4)]


def test_group_after_group():
    hosts = [Member(f"h{i}", ("all_web", f"rack_{i % 2}") if i < 4 else ("all_web",)) for i in range(5)]
    found = arrange(hosts, Rollout(waves=["1", "100%"], canary=["h0"], by="group:rack_*"))
    assert [(w.name, list(w.hosts)) for w in found] == [
        ("canary", ["h0"]), ("group=rack_0", ["h2"]), ("group=rack_1", ["h1"]), ("group=rack_1", ["h3"]), ("no group:rack_*", ["h4"]),
    ]  # fmt: skip
    assert Member("h", ("rack_b", "rack_a")).label("group:rack_?") == "rack_a" and not Member("h").label("group:*")


def test_the_gate():
    assert not closed(Rollout(), 100, 0) and "1 hosts have failed, allowed are 0" in closed(Rollout(), 100, 1)
    assert not closed(Rollout(max_fail="2%"), 100, 2) and closed(Rollout(max_fail="2%"), 100, 3)
    assert not closed(Rollout(max_fail="3"), 100, 3, unreachable=100)
    assert "could not be reached" in closed(Rollout(max_unreachable="5%"), 100, 0, unreachable=6)


@pytest.mark.parametrize(
    ("windows", "when", "inside"),
    [
        (["Sat-Sun 02:00-05:00"], "2026-11-21 02:00", True),  # a Saturday
        (["Sat-Sun 02:00-05:00"], "2026-11-21 05:00", False),
        (["Sat-Sun 02:00-05:00"], "2026-11-23 03:00", False),  # a Monday
        (["Mon 22:00-02:00"], "2026-11-23 23:00", True),
        (["Mon 22:00-02:00"], "2026-11-24 01:59", True),  # the window that began on Monday
        (["Mon 22:00-02:00"], "2026-11-23 01:00", False),  # Sunday's would be another
        (["03:00-04:00"], "2026-11-25 03:30", True),
        (["Fri-Mon 00:00-24:00"], "2026-11-22 12:00", True),  # over the end of the week
        (["Tue,Thu 01:00-02:00", "Wed 01:00-02:00"], "2026-11-25 01:30", True),
    ],
)
def test_windows(windows, when, inside):
    assert in_window(windows, datetime.fromisoformat(when + "+00:00")) is inside


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)))
def test_a_window_of_whole_days_is_always_open_and_time_zones_do_not_matter(moment):
    now = moment.replace(tzinfo=UTC)
    assert in_window(["Mon-Sun 00:00-24:00"], now)
    assert in_window(["Sat 02:00-05:00"], now) == in_window(["Sat 02:00-05:00"], now.astimezone())
    assert in_window(["Sat 02:00-05:00"], now) == in_window(["Sat 02:00-05:00"], now + timedelta(days=7))


class World:
    """Stands in for Ansible: what the hosts answer is set here; what is asked of them is noted."""

    def __init__(self, monkeypatch, facts, bad=(), invalid=()):
        self.facts = {f.host: f for f in facts}
        self.bad, self.invalid, self.changed, self.rebooted = set(bad), set(invalid), [], []
        monkeypatch.setattr(session, "transact", self.transact)
        monkeypatch.setattr(session, "reboot_hosts", self.reboot)
        monkeypatch.setattr(session, "from_hosts", lambda _w, _t, hosts: Collected([self.facts[h] for h in hosts], []))
        monkeypatch.setattr(waivers, "verdict", self.verdict)

    def transact(self, _whom, work, _hash, *, check=False, progress=None, part="whole"):
        self.changed.append([h.host for h in work])
        return [Outcome(host=h.host, state="undone" if h.host in self.bad else "committed") for h in work]

    def reboot(self, _whom, hosts, *, progress=None, once=False):
        self.rebooted += hosts
        return dict.fromkeys(hosts, "")

    def verdict(self, _planner, facts, _platform, _decision):
        return Verdict(host=facts.host, status="fail" if facts.host in self.invalid else "pass")


def run(hosts, facts, rollout, **options):
    policy = load(default_path(), K)
    change = Change(kind="knob", what="x", why="y", step={})
    plan = seal(policy, [msgspec.structs.replace(h, changes=[change]) for h in hosts])
    plan = msgspec.structs.replace(plan, rollout=rollout)
    return session.Run(Pipeline(policy, K), Whom(("x,",)), plan, **options).apply(Collected(facts, []))


def test_reboots_wait_for_their_window(monkeypatch):
    hosts, facts = plans(3)
    hosts = [
        msgspec.structs.replace(hosts[0], reboot_allowed="window", reboot_windows=["Sat 02:00-05:00"]),
        msgspec.structs.replace(hosts[1], reboot_allowed="never"),
        hosts[2],
    ]
    world = World(monkeypatch, facts)
    monday = datetime(2026, 11, 23, 3, tzinfo=UTC)
    out = run(hosts, facts, Rollout(), reboot=True, clock=lambda: monday)
    assert world.rebooted == ["h002"] and out.pending_reboot == ["h000", "h001"]
    assert "windows" in out.reboot_held["h000"] and "no reboot" in out.reboot_held["h001"]
    assert may_reboot(hosts[0], datetime(2026, 11, 21, 3, tzinfo=UTC)) == ""
