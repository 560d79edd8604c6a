# SPDX-License-Identifier: Apache-2.0
"""The lab proves itself: a stock Debian guest is configured by hand, crashed, and its dump judged."""

import re
from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.treehash import diff_trees
from orchestrator.lab.vmcore import PANIC, capture_problems, judge_vmcore, wait_capture

pytestmark = pytest.mark.lab

SNIPPET = "/etc/default/grub.d/zz-lab.cfg"
# Replaces whatever crashkernel= the package's own snippet has put there: exactly one must reach the kernel.
SNIPPET_TEXT = (
    'GRUB_CMDLINE_LINUX_DEFAULT="$(echo "$GRUB_CMDLINE_LINUX_DEFAULT" | sed "s/ *crashkernel=[^ ]*//g") '
    'crashkernel=160M"\n'
)


@pytest.mark.parametrize("suite", ["bookworm"])
def test_crash_through_grub_leaves_a_complete_dump(suite, tmp_path: Path) -> None:
    spec = ImageSpec(suite=suite)
    with Guest(build_image(spec), tmp_path / suite, name=suite, machine=Machine(memory_mb=spec.memory_mb)) as guest:
        guest.wait_ssh()
        assert "crashkernel=" not in guest.read("cat /proc/cmdline")
        assert guest.read("cat /sys/kernel/kexec_crash_loaded") == "0"

        assert diff_trees(guest.tree_hash(), guest.tree_hash()) == []

        guest.ssh(["tee", SNIPPET], stdin=SNIPPET_TEXT)
        guest.ssh("update-grub")
        assert "crashkernel=160M" in guest.read("cat /boot/grub/grub.cfg")
        guest.reboot()
        assert re.findall(r"crashkernel=\S+", guest.read("cat /proc/cmdline")) == ["crashkernel=160M"]
        assert guest.read("cat /sys/kernel/kexec_crash_loaded") == "1"

        mark = guest.crash()
        capture = wait_capture(guest, mark)
        assert capture.saved, capture_problems(guest.console.texts(mark))
        assert "reset_devices" in capture.command_line and "crashkernel=" not in capture.command_line
        assert capture.cpus == 1
        assert any(event["event"] == "SHUTDOWN" for event in guest.last_events)

        guest.start()
        guest.wait_ssh()
        verdict = judge_vmcore(guest, tmp_path / "core")
        assert verdict.complete, verdict.problems
        assert verdict.panic == PANIC and verdict.size > 1 << 20
    assert not guest.alive()
