# SPDX-License-Identifier: Apache-2.0
"""What watch.yaml says, recorded events held against it, and when a look is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.events import MAX_REASONS, Debounce, Event, reason, subsystems
from orchestrator.agent.interest import interest, parse, words
from orchestrator.documents.watch import Reason
from orchestrator.errors import KnowledgeError
from orchestrator.fleet.collect import interest as probe_interest
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load

ROWS = interest().events

#: As the kernel told them: hotplug of memory and CPUs, modules, disks, Hyper-V's bus.
RECORDED = [
    (("online", "memory", "/devices/system/memory/memory40", ""), "memory-hotplug"),
    (("add", "memory", "/devices/system/memory/memory41", ""), "memory-hotplug"),
    (("offline", "cpu", "/devices/system/cpu/cpu1", ""), "cpu-hotplug"),
    (("add", "module", "/module/hyperv_drm", ""), "hyperv-module"),
    (("remove", "module", "/module/pvpanic_pci", ""), "pvpanic-module"),
    (("add", "module", "/module/kvm_amd", ""), "confidential-module"),
    (("add", "module", "/module/mlx5_core", ""), "driver-module"),
    (("add", "module", "/module/nf_tables", ""), ""),
    (("change", "module", "/module/hyperv_drm", ""), ""),
    (("add", "drm", "/devices/pci0000:00/0000:00:02.0/drm/card0", ""), "drm"),
    (("change", "drm", "/devices/pci0000:00/0000:00:02.0/drm/card0", ""), ""),
    (("bind", "vmbus", "/devices/LNXSYSTM:00/VMBUS:00/f8615163-df3e-46c5-913f-f2d2f965ed0e", "hv_netvsc"), "vmbus"),
    (("remove", "xen", "/devices/vbd-51712", "vbd"), "xen"),
    (("unbind", "virtio", "/devices/pci0000:00/0000:00:04.0/virtio1", "virtio_blk"), "platform-bus"),
    (("remove", "block", "/devices/pci0000:00/0000:00:04.0/virtio1/block/vdb", ""), "block"),
    (("change", "block", "/devices/virtual/block/dm-0", ""), "block"),
    (("add", "block", "/devices/virtual/block/loop7", ""), ""),
    (("add", "net", "/devices/virtual/net/veth12ab", ""), ""),
    (("move", "net", "/devices/pci0000:00/0000:00:03.0/net/ens3", ""), "network"),
    (("add", "misc", "/devices/virtual/misc/tdx_guest", ""), "confidential-device"),
    (("add", "misc", "/devices/virtual/misc/rfkill", ""), ""),
    (("add", "usb", "/devices/pci0000:00/usb1", ""), ""),
]  # fmt: skip


@pytest.mark.parametrize(("event", "id"), RECORDED)
def test_recorded_events_have_their_reason(event, id):
    found = reason(Event(*event), ROWS)
    assert (found.id if found else "") == id
    if found:
        assert found.seen.startswith(f"{event[0]} {event[1]} {event[2]}")


@given(
    st.builds(Event, st.text(max_size=8), st.sampled_from(subsystems(ROWS)), st.text(max_size=40), st.text(max_size=8))
)
def test_no_event_is_too_strange(event):
    found = reason(event, ROWS)
    assert found is None or len(found.seen) <= 300


def fits(subsystem, action, name):
    return reason(Event(action, subsystem, f"/x/{name}"), ROWS) is not None


def test_what_knowledge_asks_for_is_watched():
    """A feature that looks at a module, a module whose parameters are read, a bus: coming and going must be noticed."""
    features = load(read_text("policies/knowledge/features.yaml"), "f").data["features"]
    modules = {test["module"] for tests in features.values() for test in tests if "module" in test}
    modules |= {p.partition(".")[0] for p in probe_interest()["module_params"]} - {"pstore"}  # built in, always
    for module in modules:
        assert fits("module", "add", module) and fits("module", "remove", module), module
    for bus in probe_interest()["buses"]:
        assert fits(bus, "add", "x"), bus
    devices = [d.rsplit("/", 1)[-1] for d in probe_interest()["devices"] if d.startswith("/dev/")]
    for name in devices:
        assert fits("misc", "add", name.replace("-", "_")) or fits("misc", "add", name), name


def test_files_that_the_probe_reads_are_polled():
    polled = {path for row in interest().polls for path in row.paths}
    assert polled >= {*probe_interest()["files"], *probe_interest()["stat_only"], *probe_interest()["grub_cfg"]}


def test_every_row_says_why_and_on_whose_word():
    for row in [*interest().events, *interest().polls, interest().targets]:
        assert row.why and row.sources
    text = read_text("policies/knowledge/watch.yaml")
    for old, new in (("sources: [mountinfo]", "sources: [nobody]"), ("id: drm", "id: block"), ("what: ", "wat: "),
                     ("probe: files", "probe: filez"), ("events:", "evnts:")):  # fmt: skip
        with pytest.raises(KnowledgeError):
            parse(text.replace(old, new, 1))
    assert words("x") == ["x"]


def test_a_storm_is_one_look_and_one_that_never_ends_is_not_waited_for():
    waiting = Debounce(5, 60)
    assert waiting.due() is None
    for second in range(200):
        waiting.add(Reason(id="memory-hotplug", what="m"), float(second))
    assert waiting.due() == 60.0
    (found,) = waiting.take()
    assert found.count == 200 and waiting.due() is None


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 99)), min_size=1, max_size=300))
def test_a_look_is_due_in_time_and_memory_is_bounded(steps):
    waiting, now = Debounce(5, 60), 0.0
    for step, id in steps:
        now += step
        waiting.add(Reason(id=str(id), what=""), now)
        assert waiting.first <= now and waiting.due() <= min(now + 5, waiting.first + 60)
        assert len(waiting.reasons) <= MAX_REASONS
    assert sum(r.count for r in waiting.reasons.values()) + waiting.dropped == len(steps)
