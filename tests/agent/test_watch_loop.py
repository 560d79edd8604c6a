# SPDX-License-Identifier: Apache-2.0
"""From events and polls to lines: a real host tree that changes, real signals, real time in small pieces."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.events import Event
from orchestrator.agent.interest import interest
from orchestrator.agent.poll import Poller
from orchestrator.agent.turns import text, turned
from orchestrator.agent.watch import Rhythm, Watch
from orchestrator.documents.base import encode, to_builtins
from orchestrator.documents.report import HostReport
from orchestrator.documents.verdict import Check
from orchestrator.documents.watch import Reason, WatchLine, WatchState
from orchestrator.errors import KdoError, PolicyError
from orchestrator.resources import read_text

BRISK = Rhythm(poll=0.05, quiet=0.05, most=0.5, heartbeat=60)


class Pipe:
    """Events that a test puts in, with a descriptor that becomes readable, as netlink's does."""

    def __init__(self):
        self.out, self.into = os.pipe()
        self.waiting = []
        self.broken = False

    def fileno(self):
        return self.out

    def put(self, *events):
        self.waiting += events
        os.write(self.into, b"x")

    def events(self):
        os.read(self.out, 100)
        if self.broken:
            raise OSError(105, "No buffer space available")
        while self.waiting:
            yield self.waiting.pop(0)


@pytest.fixture
def watch(tree, orders):
    lines: list[WatchLine] = []
    wanted = interest()
    made = Watch(who=tree, orders=lambda: orders, rows=wanted.events, say=lines.append, rhythm=BRISK,
                 poller=Poller(wanted.polls, wanted.targets, tree.root), monitor=Pipe())  # fmt: skip
    made.lines = lines
    return made


def load(tree, value):
    Path(tree.root, "sys/kernel/kexec_crash_loaded").write_text(value)


def running(watch, *steps):
    """Run the watch while the steps happen one after the other, each after what it waits for has been told."""

    def drive():
        try:
            for until, step in steps:
                end = time.monotonic() + 90
                while not until() and time.monotonic() < end:
                    time.sleep(0.01)
                step()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=drive)
    thread.start()
    watch.run()
    thread.join()


def kinds(watch):
    return [line.kind for line in watch.lines]


def test_it_says_what_was_disarmed_and_armed_again(watch, tree):
    running(
        watch,
        (lambda: "start" in kinds(watch), lambda: load(tree, "1")),
        (lambda: kinds(watch).count("change") == 1, lambda: load(tree, "0")),
        (lambda: kinds(watch).count("change") == 2, lambda: None),
    )
    assert kinds(watch) == ["start", "change", "change", "end"]
    armed, disarmed = watch.lines[1:3]
    assert armed.reasons[0].seen == "/sys/kernel/kexec_crash_loaded: 0 → 1"
    (check,) = [t for t in disarmed.turned if t.id == "capture-loaded"]
    assert check.after == "fail" and disarmed.drift and disarmed.before == armed.after
    schema = json.loads(read_text("schemas/watch-line.schema.json"))
    for line in watch.lines:
        jsonschema.Draft202012Validator(schema).validate(to_builtins(line))
        assert msgspec.json.decode(encode(line), type=WatchLine) == line and "\n" not in text(line)


def test_an_event_is_the_reason_and_one_that_matters_not_is_none(watch, tree):
    def hotplug():
        load(tree, "1")
        watch.monitor.put(*[Event("online", "memory", f"/devices/system/memory/memory{n}") for n in range(100)])

    watch.rhythm = replace(BRISK, poll=60)
    running(
        watch,
        (lambda: "start" in kinds(watch), lambda: watch.monitor.put(Event("add", "usb", "/devices/usb1"))),
        (lambda: True, hotplug),
        (lambda: "change" in kinds(watch), lambda: None),
    )
    assert kinds(watch) == ["start", "change", "end"]
    (reason,) = watch.lines[1].reasons
    assert (reason.id, reason.count) == ("memory-hotplug", 100) and watch.looks == 2 and watch.events == 100
    assert "memory has come or gone (online memory /devices/system/memory/memory0, 100 times)" in text(watch.lines[1])


def test_nothing_new_is_said_by_a_heartbeat_only(watch):
    watch.rhythm = replace(BRISK, heartbeat=0.3)
    running(watch, (lambda: kinds(watch).count("heartbeat") >= 2, lambda: None))
    assert set(kinds(watch)) == {"start", "heartbeat", "end"} and watch.lines[1].after == watch.lines[0].after


def test_lost_events_are_a_reason_to_look(watch, tree):
    def lose():
        load(tree, "1")
        watch.monitor.broken = True
        watch.monitor.put()

    watch.rhythm = replace(BRISK, poll=60)
    running(watch, (lambda: "start" in kinds(watch), lose), (lambda: "change" in kinds(watch), lambda: None))
    assert watch.lines[1].reasons[0].id == "events-lost"


def test_a_socket_that_stays_broken_is_given_up(watch):
    class Broken(Pipe):
        def events(self):
            raise OSError(9, "bad")
            yield

    watch.monitor = Broken()
    watch.rhythm = replace(BRISK, poll=60)
    running(
        watch,
        (lambda: "start" in kinds(watch), watch.monitor.put),
        (lambda: watch.monitor is None, lambda: None),
    )
    assert "only polling is left" in next(p.what for line in watch.lines for p in line.problems)


def test_trouble_is_told_once_and_ends_nothing(watch, orders):
    trouble: list[Exception] = []

    def asked():
        if trouble:
            raise trouble[0]
        return orders

    watch.orders = asked
    assert watch.once() is not None and kinds(watch) == ["start"]
    trouble.append(PolicyError("it is broken", fix="mend it"))
    assert watch.once() is None and watch.once() is None
    assert kinds(watch) == ["start", "problem"] and watch.lines[1].problems[0].what == "it is broken"
    trouble[0] = ValueError("x")  # a fault of ours, too
    watch.once()
    assert watch.lines[2].problems[0].why == "ValueError: x"
    trouble.clear()
    assert watch.once() is not None and kinds(watch) == ["start", "problem", "problem"]  # as before the trouble


def test_a_poll_that_fails_ends_nothing(watch, monkeypatch):
    calls = []

    def look(_targets):
        calls.append(1)
        raise RuntimeError("odd")

    monkeypatch.setattr(watch.poller, "look", look)
    running(watch, (lambda: len(calls) > 2, lambda: None))
    assert kinds(watch)[-1] == "end" and "RuntimeError: odd" in watch.lines[0].problems[0].why


def test_reports_follow_the_lines_and_their_failure_is_told(watch, tree):
    sent: list[HostReport] = []
    watch.send = sent.append
    watch.once()
    watch.once()
    assert len(sent) == 1 and sent[0].how == "watch" and sent[0].verdict.host == "web1"
    load(tree, "1")

    def fail(_report):
        raise KdoError("no way", why="w")

    watch.send = fail
    watch.once()
    assert kinds(watch) == ["start", "change", "problem"]


def test_the_host_is_never_written_to(watch, tree):
    from tests.fleet.test_record_and_dry_run import picture

    before = picture(tree.root)
    running(watch, (lambda: "start" in kinds(watch), lambda: watch.monitor.put(Event("add", "cpu", "/x/cpu3"))))
    assert picture(tree.root) == before


# ---------------------------------------------------------------------- the pure part

STATES = st.builds(
    WatchState,
    status=st.sampled_from(["pass", "fail", "refused"]),
    plan=st.sampled_from(["none", "changes", "refused", "waived"]),
    checks=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["pass", "fail", "skip", "unknown"])),
)


@given(STATES, STATES)
def test_what_has_turned_leads_from_one_state_to_the_other(before, after):
    found = turned(before, after, [Check(id=i, title="", verdict=v, evidence="e") for i, v in after.checks.items()])
    checks = dict(before.checks)
    for t in found:
        assert t.before != t.after and checks.get(t.id, "") == t.before
        checks[t.id] = t.after
    assert {i: v for i, v in checks.items() if v} == after.checks
    assert turned(after, after, []) == []
    assert not (after.drift and after.fine)


@given(STATES, STATES, st.text(max_size=50))
def test_every_line_has_a_text(before, after, seen):
    line = WatchLine(
        kind="change", host="h", at="t", before=before, after=after, reasons=[Reason(id="x", what="y", seen=seen)]
    )
    assert text(line).startswith("t h: change | ")
