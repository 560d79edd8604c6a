# SPDX-License-Identifier: Apache-2.0
"""What a crash test concludes from the host's answer, and what keeps it from beginning."""

import msgspec
import pytest

from orchestrator.cli.common import PolicyChoice
from orchestrator.documents.facts import Facts
from orchestrator.documents.proof import Proof
from orchestrator.errors import KdoError
from orchestrator.fleet.runner import Answer, Whom
from orchestrator.proof import crash_test
from orchestrator.proof.crash_test import CrashTest, NotBack, NotReady, judged_by_host, late, only_one, verdict_of
from orchestrator.proof.store import read, stored
from orchestrator.resources import state_dir
from tests.builders import KDUMP_TOOLS, debian, file, redhat

PROOF = Proof(how="crash-test", host="web1", kernel="6.1.0-1", state="s1")
GOOD = {"path": "/var/crash/1/dump.1", "size": 20 << 20, "complete": True, "panic": "Kernel panic - not syncing: sysrq",
        "readers": ["makedumpfile"], "problems": []}  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "outcome", "what"),
    [
        ({"state": "crashed", "dump": GOOD}, "dumped", ""),
        ({"state": "crashed", "dump": {**GOOD, "complete": False, "problems": ["it is empty"]}}, "lost", "not good"),
        ({"state": "crashed", "dump": {**GOOD, "complete": "yes"}}, "lost", "not good"),
        ({"state": "crashed", "dump": {**GOOD, "complete": False, "notes": ["no room"]}}, "unfinished", "not be read"),
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
        "notes": 7,
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


@pytest.fixture
def state(monkeypatch, tmp_path):
    """The controller's own place, empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "kdump-orchestrator"


def test_a_check_leaves_nothing_here_either(state):
    with only_one(write=False):
        assert not state.exists()
    with only_one(), pytest.raises(NotReady), only_one(write=False):
        pass


def test_a_place_that_cannot_be_written_is_no_traceback(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(KdoError), only_one():
        pass


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
        proof, path = test.crash("b" * 36, PROOF, 60)
        assert proof.outcome == outcome and read(path) == proof
    assert not list((state_dir() / "crash-tests").iterdir())


class Remote:
    """Stands for the Ansible side: what is answered to each phase, and with which token."""

    def __init__(self, monkeypatch, verdict):
        self.verdict, self.token = verdict, ""
        monkeypatch.setattr(crash_test, "ask", self)
        monkeypatch.setattr(CrashTest, "folder", "/var/crash")

    def __call__(self, _whom, host, phase, spec, **_):
        if phase == "crash":
            self.token = spec["token"]
            return Answer(host, "ok", {"state": "ordered", "error": None})
        return self.verdict if isinstance(self.verdict, Answer) else Answer(host, "ok", self.verdict)

    def crash(self):
        return CrashTest(None, Whom(("x,",)), Facts(host="web1"), None).crash("b" * 36, PROOF, 60)

    def dumped(self, **more):
        self.verdict = {"state": "crashed", "error": None, "token": self.token, "dump": GOOD, **more}


GONE = Answer("web1", "unreachable", {}, "timed out")


def notes():
    return list((state_dir() / "crash-tests").glob("*"))


def test_a_host_that_is_still_away_leaves_an_unfinished_proof_and_its_verdict_comes_later(monkeypatch, state):
    remote = Remote(monkeypatch, GONE)
    proof, path = remote.crash()
    assert proof.outcome == "unfinished" and "not come back" in proof.what and "--verdict" in proof.fix
    assert read(path) == proof and len(notes()) == 1
    with pytest.raises(NotBack):
        late(Whom(("x,",)), "web1", 60)
    remote.dumped()
    proof, path = late(Whom(("x,",)), "web1", 60)
    assert (proof.outcome, proof.state, proof.kernel) == ("dumped", PROOF.state, PROOF.kernel)
    assert read(path) == proof and notes() == []


def test_a_verdict_is_only_forgotten_when_it_is_kept(monkeypatch, state):
    remote = Remote(monkeypatch, GONE)
    remote.crash()
    remote.dumped()
    with monkeypatch.context() as broken:
        broken.setattr(crash_test, "keep", lambda _proof: (_ for _ in ()).throw(KdoError("no room")))
        with pytest.raises(KdoError, match="no room"):
            late(Whom(("x,",)), "web1", 60)
    remote.dumped(again=True)  # the host tells it again
    assert late(Whom(("x,",)), "web1", 60)[0].outcome == "dumped"
    with pytest.raises(NotReady, match="no crash test waits"):  # and a third time there is nothing to do
        late(Whom(("x,",)), "web1", 60)
    assert [proof.outcome for proof in stored()].count("dumped") == 1


def test_a_host_that_knows_of_no_order_leaves_no_note(monkeypatch, state):
    error = {"what": "no crash test waits for its verdict", "why": "", "fix": ""}
    remote = Remote(monkeypatch, Answer("web1", "failed", {"state": "refused", "error": error}))
    with pytest.raises(NotReady):
        remote.crash()
    assert notes() == []


def test_a_host_cannot_answer_for_another(monkeypatch, state):
    remote = Remote(monkeypatch, GONE)
    remote.crash()
    remote.dumped()
    proof, _ = late(Whom(("x,",)), "web2", 60)
    assert proof.host == "web2" and not proof.state and len(notes()) == 1


@pytest.mark.parametrize(
    ("config", "kind", "path"),
    [
        (KDUMP_TOOLS, "path", "/var/crash"),
        (KDUMP_TOOLS.replace("/var/crash", "/srv/dumps"), "path", "/srv/dumps"),
        (KDUMP_TOOLS + "SSH=dump@server\n", "ssh", ""),
        (KDUMP_TOOLS + "NFS=server:/dumps\n", "nfs", ""),
    ],
)
def test_the_dump_is_looked_for_where_the_host_puts_it(config, kind, path):
    """The shipped policy leaves the target to the host's own configuration."""
    facts = debian("web1")
    facts.files["/etc/default/kdump-tools"] = file(config)
    choice = PolicyChoice()
    pipeline = choice.pipeline()
    test = CrashTest(pipeline, Whom(("x,",)), facts, choice.waiver_set(pipeline))
    assert (test.target.kind, test.target.path) == (kind, path)
    assert test.folder == (path or "/var/crash")
    with pytest.raises(NotReady) as caught:
        test.expected()
    assert ("could not be judged" in str(caught.value)) == (kind != "path")


@pytest.mark.parametrize("target", ["virtiofs: dumps", "filesystem: LABEL=dumps", "nfs: 'server:/dumps'"])
def test_a_target_that_is_not_there_afterwards_is_refused(tmp_path, target):
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: kdump-orchestrator/v1\nkind: Policy\nmetadata: {name: other}\n"
        f"spec: {{default: {{strategy: [kdump_reset], settings: {{target: {{{target}}}}}}}}}\n"
    )
    choice = PolicyChoice(str(policy))
    pipeline = choice.pipeline()
    facts = msgspec.structs.replace(redhat("fedora"), host="web1")
    test = CrashTest(pipeline, Whom(("x,",)), facts, choice.waiver_set(pipeline))
    with pytest.raises(NotReady) as caught:
        test.expected()
    assert "could not be judged" in str(caught.value)
