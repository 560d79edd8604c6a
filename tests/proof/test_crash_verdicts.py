# SPDX-License-Identifier: Apache-2.0
"""What a crash test concludes from the host's answer, and what keeps it from beginning."""

import pytest

from orchestrator.documents.facts import Facts
from orchestrator.documents.proof import Proof
from orchestrator.errors import KdoError
from orchestrator.fleet.runner import Answer, Whom
from orchestrator.proof import crash_test
from orchestrator.proof.crash_test import NotBack, NotReady, judged_by_host, only_one, verdict_of
from orchestrator.proof.store import state_dir

PROOF = Proof(how="crash-test", host="web1", kernel="6.1.0-1", state="s1")
GOOD = {"path": "/var/crash/1/dump.1", "size": 20 << 20, "complete": True, "panic": "Kernel panic - not syncing: sysrq",
        "readers": ["makedumpfile"], "problems": []}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "outcome", "what"),
    [
        ({"state": "crashed", "dump": GOOD}, "dumped", ""),
        ({"state": "crashed", "dump": {**GOOD, "complete": False, "problems": ["it is empty"]}}, "lost", "not good"),
        ({"state": "crashed", "dump": {**GOOD, "complete": "yes"}}, "lost", "not good"),
        ({"state": "crashed", "dump": None}, "lost", "no new dump"),
        ({"state": "not-crashed"}, "unfinished", "did not crash"),
    ],
)
def test_the_hosts_answer_becomes_a_verdict(answer, outcome, what):
    proof = judged_by_host(PROOF, answer)
    assert proof.outcome == outcome and what in proof.what
    assert (proof.kernel, proof.state, proof.host) == ("6.1.0-1", "s1", "web1")


def test_a_hosts_words_are_cut_and_typed():
    wild = {
        "path": "x" * 9999,
        "size": "big",
        "complete": True,
        "panic": "p" * 9999,
        "readers": ["r" * 999] * 99,
        "problems": "no",
    }
    dump = judged_by_host(PROOF, {"state": "crashed", "dump": wild}).dump
    assert len(dump.path) <= 400 and dump.size == 0 and len(dump.panic) <= 200 and len(dump.readers) <= 4


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer("web1", "unreachable", {}, "timed out"), NotBack),
        (Answer("web1", "failed", {}, "timed out waiting for ping module test"), NotBack),
        (
            Answer(
                "web1", "failed", {"state": "refused", "error": {"what": "no crash test waits", "why": "", "fix": ""}}
            ),
            NotReady,
        ),
    ],
)
def test_a_host_that_does_not_come_back_gets_instructions(monkeypatch, answer, error):
    monkeypatch.setattr(crash_test, "ask", lambda *_a, **_k: answer)
    with pytest.raises(error) as caught:
        verdict_of(Whom(("x,",)), "web1", "", 60)
    assert isinstance(caught.value, KdoError)
    if error is NotBack:
        assert "kdo crash-test web1 --verdict" in caught.value.problems[0].fix


def test_only_one_at_a_time():
    with only_one(), pytest.raises(NotReady), only_one():
        pass
    with only_one():
        pass


@pytest.mark.parametrize(
    ("ordered", "outcome"),
    [
        (Answer("web1", "ok", {"state": "ordered", "error": None}), "dumped"),
        (Answer("web1", "unreachable", {}, "Connection closed"), "dumped"),
        (Answer("web1", "failed", {"state": "refused", "error": {"what": "no", "why": "", "fix": ""}}), NotReady),
    ],
)
def test_a_lost_connection_is_no_refusal(monkeypatch, ordered, outcome):
    """The crash may be on its way: what comes back is waited for, and what it is to prove is kept until then."""
    answers = {"crash": ordered, "verdict": Answer("web1", "ok", {"state": "crashed", "error": None, "dump": GOOD})}
    monkeypatch.setattr(crash_test, "ask", lambda _whom, _host, phase, _spec, **_k: answers[phase])
    test = crash_test.CrashTest(None, Whom(("x,",)), Facts(host="web1"), None)
    monkeypatch.setattr(crash_test.CrashTest, "folder", "/var/crash")
    if outcome is NotReady:
        with pytest.raises(NotReady):
            test.crash("b" * 36, PROOF, 60)
    else:
        assert test.crash("b" * 36, PROOF, 60).outcome == outcome
    assert not list((state_dir() / "crash-tests").iterdir())
