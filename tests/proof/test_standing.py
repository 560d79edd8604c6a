# SPDX-License-Identifier: Apache-2.0
"""A proof holds for one kernel and one desired state."""

import msgspec
import pytest

from orchestrator.documents.proof import Proof
from orchestrator.documents.verdict import Verdict
from orchestrator.errors import InvalidInput
from orchestrator.proof.standing import standing, with_standing
from orchestrator.proof.store import by_host, keep, stored

GOOD = Proof(how="crash-test", host="web1", at="2026-01-02T03:04:05Z", outcome="dumped", kernel="6.1.0-1", state="s1")
BAD = msgspec.structs.replace(GOOD, at="2026-01-03T00:00:00Z", outcome="lost", what="out of memory")


@pytest.mark.parametrize(
    ("proofs", "state", "kernel", "wanted", "why"),
    [
        ([], "s1", "6.1.0-1", "never proven", "no crash test"),
        ([GOOD], "s1", "6.1.0-1", "proven", "left a vmcore"),
        ([GOOD], "s1", "6.1.0-2", "proof expired", "the kernel is 6.1.0-2, it was 6.1.0-1"),
        ([GOOD], "s2", "6.1.0-1", "proof expired", "what is wanted"),
        ([GOOD, BAD], "s1", "6.1.0-1", "never proven", "out of memory"),
        ([BAD], "s2", "6.1.0-1", "never proven", "out of memory"),
        ([BAD, GOOD], "s1", "6.1.0-1", "proven", ""),
        ([GOOD, msgspec.structs.replace(BAD, outcome="unfinished")], "s1", "6.1.0-1", "proven", ""),
        ([msgspec.structs.replace(GOOD, experiment="other arguments")], "s1", "6.1.0-1", "never proven", ""),
    ],
)
def test_what_proofs_still_say(proofs, state, kernel, wanted, why):
    found = standing(proofs, state, kernel)
    assert found.state == wanted
    assert why in found.why


def test_only_crash_tests_of_the_host_itself_count():
    rehearsal = msgspec.structs.replace(GOOD, how="rehearsal")
    other = msgspec.structs.replace(GOOD, host="web2")
    assert by_host([rehearsal, other, GOOD])["web1"] == [GOOD]
    verdict = Verdict(host="web1", status="pass", kernel="6.1.0-1", state="s1")
    assert with_standing(verdict, by_host([rehearsal, other])).proof.state == "never proven"
    assert with_standing(verdict, by_host([GOOD])).proof.state == "proven"


@pytest.mark.parametrize("status", ["refused", "unsupported"])
def test_a_host_that_is_not_judged_has_no_standing(status):
    assert with_standing(Verdict(host="web1", status=status), by_host([GOOD])).proof is None


def test_kept_proofs_come_back_in_order_and_are_private(tmp_path):
    folder = tmp_path / "proofs"
    assert stored(folder) == []
    paths = [keep(proof, folder) for proof in (BAD, GOOD)]
    assert stored(folder) == [GOOD, BAD]
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o600]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2


def test_a_file_that_is_no_proof_is_named(tmp_path):
    (tmp_path / "x.json").write_text('{"kind": 1}')
    with pytest.raises(InvalidInput) as caught:
        stored(tmp_path)
    assert "x.json" in caught.value.problems[0].where


def test_a_host_name_is_no_path(tmp_path):
    path = keep(msgspec.structs.replace(GOOD, host="../../etc/passwd"), tmp_path / "proofs")
    assert path.parent == tmp_path / "proofs"
