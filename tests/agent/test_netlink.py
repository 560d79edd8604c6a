# SPDX-License-Identifier: Apache-2.0
"""Real events of the kernel: written to uevent files, they change nothing on the machine."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from orchestrator.agent.events import reason, subsystems
from orchestrator.agent.interest import interest

CPU = Path("/sys/devices/system/cpu/cpu0/uevent")


@pytest.fixture
def monitor():
    from orchestrator.agent.monitor import Monitor

    if os.geteuid() != 0 or not os.access(CPU, os.W_OK):
        pytest.skip("needs root and a writable /sys to make the kernel tell an event")
    try:
        found = Monitor(subsystems(interest().events), "kernel")
        CPU.write_text("change")
    except (OSError, ImportError) as e:
        pytest.skip(f"no netlink here: {e}")
    if not select.select([found], [], [], 2)[0]:
        pytest.skip("the kernel's events do not reach this network namespace")
    list(found.events())
    return found


def events(monitor, wanted, seconds=5):
    found, end = [], time.monotonic() + seconds
    while len(found) < wanted and select.select([monitor], [], [], max(0, end - time.monotonic()))[0]:
        found += monitor.events()
    return found


def test_real_events_have_their_reason(monitor):
    CPU.write_text("change")
    (event,) = events(monitor, 1)
    assert (event.action, event.subsystem, event.name) == ("change", "cpu", "cpu0")
    assert reason(event, interest().events).id == "cpu-hotplug"


def test_what_does_not_matter_is_not_let_through(monitor):
    for path in Path("/sys/class/tty").glob("tty*/uevent"):
        path.write_text("change")
    CPU.write_text("change")
    assert [e.subsystem for e in events(monitor, 1)] == ["cpu"]


def test_a_storm_does_not_block_and_is_noticed(monitor):
    for _ in range(20_000):
        CPU.write_text("change")
    told, end = 0, time.monotonic() + 20
    lost = False
    while select.select([monitor], [], [], 0.2)[0] and time.monotonic() < end:
        try:
            for _ in monitor.events():
                told += 1
        except OSError:
            lost = True
    assert told > 500 and (lost or told == 20_000)
    assert not select.select([monitor], [], [], 0.1)[0]  # it does not stay readable: that would be a busy loop
    CPU.write_text("change")
    assert len(events(monitor, 1)) == 1
