# SPDX-License-Identifier: Apache-2.0
"""What a run shows while it goes on: one live line a wave on a terminal, few plain lines elsewhere, and never a line for each host."""

from __future__ import annotations

import io
from types import SimpleNamespace

from orchestrator.reports.progress import NAMED, QUIET, Lines, spent
from orchestrator.store.runs import WaveRow

RUN = SimpleNamespace(id="20261124-0300-aaaa", kind="apply")


def wave(number=0, hosts=1000, name=""):
    return WaveRow(number, name, "running", hosts, 0, None, None, "")


def shown(live: bool, steps, bad=None):
    moment = [0.0]
    out = io.StringIO()
    lines = Lines(out, clock=lambda: moment[0], live=live, bad=bad)
    for at, w, tally in steps:
        moment[0] = at
        lines.wave(RUN, w, tally)
    return out.getvalue()


def test_plain_lines_come_every_ten_seconds_and_at_the_end():
    steps = [(t / 2, wave(), {"waiting": 1000 - t, "changed": t}) for t in range(0, 1001, 1)]
    out = shown(False, steps).splitlines()
    assert len(out) <= 500 / QUIET + 2 and "\r" not in "".join(out)
    assert out[-1] == "apply wave 1: 1000/1000, 2.0/s, 8:20: 1000 changed" and "left" in out[0]
    assert "running" not in out[0] and "waiting" not in out[0]


def test_a_terminal_gets_one_line_for_each_wave():
    steps = [(1, wave(0, 2, "canary"), {"waiting": 2}), (2, wave(0, 2, "canary"), {"changed": 2}),
             (2.5, wave(0, 2, "canary"), {"changed": 2}), (3, wave(1, 4), {"running": 4}), (5, wave(1, 4), {"changed": 4})]  # fmt: skip
    out = shown(True, steps)
    assert out.count("\n") == 2 and "(canary)" in out and "wave 2" in out and "[########################] 4/4" in out


def test_failing_hosts_are_named_once_and_not_all_of_very_many():
    hosts = [SimpleNamespace(host=f"h{n:04}", state="failed", why="no\x1b[31m room") for n in range(900)]
    steps = [(t, wave(), {"waiting": 1000 - t, "failed": t}) for t in range(0, 900, 10)]
    out = shown(False, steps, bad=lambda _run, _wave: hosts[: max(1, len(hosts) // 2)]).splitlines()
    named = [x for x in out if x.startswith("h")]
    assert len(named) == len(set(named)) == NAMED and "\x1b" not in "".join(out)
    assert [x for x in out if "kdo runs show" in x] == [f"more of them: kdo runs show {RUN.id}"]


def test_times():
    assert (spent(0), spent(61.9), spent(3600)) == ("0:00", "1:01", "1:00:00")
