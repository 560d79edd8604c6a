# SPDX-License-Identifier: Apache-2.0
"""What a rehearsal concludes, without a guest: causes, predictions, the search for the smallest reservation."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.documents.decision import LAYERS
from orchestrator.documents.proof import Dump, Proof
from orchestrator.errors import InvalidInput
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.load import default_path, load
from orchestrator.proof import crashes, judge
from orchestrator.proof.experiment import allowed, bent, parse
from orchestrator.proof.minimise import MIB, STEP_MIB, Search, smallest
from orchestrator.proof.page import page

PANIC = "[   10.0] Kernel panic - not syncing: sysrq triggered crash"
CAPTURE = "[    0.000000] Linux version 6.1.0-1 (debian)"


def seen(*lines: str, ended: str = "reset") -> judge.Seen:
    return judge.Seen(("order", PANIC, *lines), 1, ended, 1.0)


@pytest.mark.parametrize(
    ("lines", "ended", "cause"),
    [
        ([CAPTURE, "Out of memory: Killed process 1"], "reset", "capture-memory"),
        ([CAPTURE, "[ 9] Kernel panic - not syncing: VFS: Unable to mount root fs"], "reset", "capture-root"),
        ([CAPTURE, "[ 9] Kernel panic - not syncing: Attempted to kill init!"], "reset", "capture-crash"),
        ([CAPTURE, "cp: No space left on device"], "reset", "no-space"),
        ([CAPTURE, "Unable to reach remote server dump@h"], "reset", "no-network"),
        ([CAPTURE, "makedumpfile Failed."], "reset", "collector"),
        ([CAPTURE, "makedumpfile Completed."], "reset", "unknown"),
        ([], "panicked", "guest-panicked"),
        (["---[ end Kernel panic ]---"], "hung", "silent-capture"),
    ],
)
def test_the_likely_cause_is_the_first_row_that_fits(lines, ended, cause):
    found = judge.cause(seen(*lines, ended=ended), Dump())
    assert found.id == cause
    assert found.what and found.fix


def test_a_capture_kernel_is_seen_although_the_panic_never_reached_the_console():
    line = "[    0.000000] Kernel command line: root=/dev/vda1 nr_cpus=1 reset_devices"
    nmi = judge.Seen(("order", CAPTURE, line, "[    0.5] smp: Brought up 1 node, 1 CPU"), 1, "reset", 1.0)
    assert nmi.cpus == 1 and nmi.command_line.endswith("nr_cpus=1 reset_devices") and nmi.capture == 1


def test_what_stood_there_before_the_panic_is_no_cause():
    early = judge.Seen(("Out of memory: Killed process 7", PANIC, CAPTURE), 1, "reset", 1.0)
    assert judge.cause(early, Dump()).id == "unknown"


def test_telling_lines_begin_with_the_panic_and_are_few():
    noise = [f"[{n}] nothing of interest" for n in range(500)]
    lines = judge.Seen(("before", PANIC, CAPTURE, "kdo-memory: total 9 least 8 kB", *noise,
                        "kdo-memory: total 9 least 5 kB", *noise, "[9] reboot: Restarting system"), 1, "reset", 1.0)  # fmt: skip
    told = lines.telling()
    assert told[0] == PANIC and told[1] == CAPTURE and told[-1].endswith("Restarting system")
    assert "kdo-memory: total 9 least 5 kB" in told and "kdo-memory: total 9 least 8 kB" not in told
    assert len(told) < 30 and "before" not in told


def test_every_kind_can_be_ordered_and_recognised():
    for kind in crashes.kinds().values():
        assert bool(kind.script) + bool(kind.module) + bool(kind.monitor) == 1, kind
        assert kind.predicted in ("dumped", "lost")
        knowledge().cite(kind.sources)
        assert "{cpu}" in kind.script if kind.chosen_cpu else "{" not in kind.script
    assert re.search(crashes.kind("sysrq").panic, PANIC)
    with pytest.raises(InvalidInput) as caught:
        crashes.kind("sysreq")
    assert "sysrq" in caught.value.problems[0].fix


def test_what_may_be_relied_on_in_an_emulated_guest():
    known = knowledge()
    assert allowed(known, "x86_64") == ["kdump_reset", "crash_kexec_post_notifiers"]
    assert allowed(known, "aarch64") == ["kdump_reset", "crash_kexec_post_notifiers"]
    assert allowed(known, "ppc64le") == allowed(known, "s390x") == ["kdump_reset"]


@pytest.mark.parametrize("text", ["custom_handler=on", "kdump_reset=on", "nonsense", "kdump_reset"])
def test_experiments_that_cannot_be_made(text):
    with pytest.raises(InvalidInput):
        parse(text)


def test_a_bent_policy_is_another_one():
    policy = load(str(default_path()), knowledge())
    assert bent(policy) is policy
    one, other = bent(policy, LAYERS[0]), bent(policy, LAYERS[0], {"reservation": {"crashkernel": "96M"}})
    assert len({policy.hash, one.hash, other.hash}) == 3
    assert {rule.strategy for rule in one.rules if rule.strategy} == {(LAYERS[0],)}
    assert all(rule.settings["reservation"] == {"crashkernel": "96M"} for rule in other.rules)


@given(st.integers(17, 4096), st.integers(16, 4096), st.integers(0, 5000))
def test_the_search_ends_at_the_smallest_multiple_that_works(first, threshold, guess):
    """``first`` works; below ``threshold`` nothing does. The guess may be anything."""
    search, tries = Search(works=first), 0
    size = search.next(guess)
    while size:
        assert size % STEP_MIB == 0 and search.fails < size < search.works
        worked = size >= threshold
        search.learn(size, worked)
        size = search.next(size - STEP_MIB if worked else size + STEP_MIB)
        tries += 1
        assert tries < 400
    smaller = [n for n in range(STEP_MIB, first, STEP_MIB) if n >= threshold]
    assert search.works == min([first, *smaller])


def test_the_smallest_is_one_that_dumped():
    proofs = [Proof(outcome="dumped", reservation=128 * MIB), Proof(outcome="lost", reservation=96 * MIB)]
    assert smallest(proofs) == 128 * MIB
    assert smallest(proofs[1:]) is None


def test_the_page_shows_what_was_not_as_predicted(tmp_path):
    good = Proof(outcome="dumped", arch="x86_64", strategy="kdump_reset", crash="sysrq", kernel="6.1", console=[PANIC])
    bad = msgspec.structs.replace(good, outcome="lost", what="out | of memory", reservation=64 * MIB)
    (tmp_path / "proof").mkdir()
    (tmp_path / "proof" / "proofs.jsonl").write_bytes(b"\n".join(msgspec.json.encode(p) for p in (good, bad)))
    text = page(tmp_path)
    assert "**dumped**" in text and "**lost**, **not as predicted** (dumped)" in text
    assert "out \\| of memory" in text and PANIC in text
