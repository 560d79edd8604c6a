# SPDX-License-Identifier: Apache-2.0
"""Reports: written whole, sent again, kept for later, and read as what a stranger has written."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.look import Seen, look, report
from orchestrator.agent.reports import MAX_REPORT, SPOOLED, Destination, file_name, packed, read_report
from orchestrator.documents.base import encode, to_builtins
from orchestrator.documents.facts import FileFact
from orchestrator.documents.report import HostReport, ReportPolicy
from orchestrator.errors import InvalidInput, Problem, Unreachable
from orchestrator.resources import read_text

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


@pytest.fixture
def one(tree, orders) -> HostReport:
    seen = look(tree, orders, NOW)
    assert isinstance(seen, Seen)
    return report(tree, "pull", NOW, ReportPolicy(serial=7, policy="fleet", signer="ann"), seen)


def test_it_comes_back_as_it_was_and_fits_its_schema(one, tmp_path):
    Destination(str(tmp_path)).checked().send(one)
    path = tmp_path / file_name("web1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert read_report(path) == one
    assert one.plan.status == "changes" and one.verdict.status == "fail" and one.at == "2026-11-24T03:00:00Z"
    schema = json.loads(read_text("schemas/host-report.schema.json"))
    jsonschema.Draft202012Validator(schema).validate(to_builtins(one))
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".kdo")] == []


def written(tmp_path, data: bytes, host: str = "web1"):
    path = tmp_path / file_name(host)
    path.write_bytes(data)
    return read_report(path)


def test_what_a_host_must_not_say(one, tmp_path):
    def said(**changes):
        return written(tmp_path, encode(msgspec.structs.replace(one, **changes)))

    assert isinstance(said(), HostReport)
    assert "not in its host's file" in said(host="web2").what
    assert "another host's facts" in said(facts=msgspec.structs.replace(one.facts, host="web2")).what
    assert "another host's verdict" in said(verdict=msgspec.structs.replace(one.verdict, host="web2")).what
    assert "cannot be read" in said(kind="Plan").what and "cannot be read" in said(format_version="2.0").what
    big = msgspec.structs.replace(one.facts, files={"/x": FileFact(text="x" * 300_000)})
    assert "oversized" in said(facts=big).what
    for data in (
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        encode(one)[:-10],
        encode(one).replace(b'"at":"', b'"at":1,"b":"'),
    ):
        assert written(tmp_path, data).what == "this is not a report"
    assert "too large" in written(tmp_path, b" " * (MAX_REPORT + 1)).what


def test_no_file_is_waited_for(tmp_path):
    assert "cannot be read" in read_report(tmp_path / "nowhere").what
    assert "cannot be read" in read_report(tmp_path).what
    os.mkfifo(tmp_path / "fifo")
    assert "cannot be read" in read_report(tmp_path / "fifo").what


@given(st.dictionaries(st.sampled_from(["host", "facts", "verdict", "problems", "at", "plan"]),
                       st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))))  # fmt: skip
def test_anything_in_json_is_a_report_or_a_problem(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / file_name("")
    path.write_text(json.dumps(data))
    assert isinstance(read_report(path), HostReport | Problem)


def test_facts_that_are_too_large_are_left_out(one):
    files = {f"/f{n}": FileFact(text="x" * 200_000) for n in range(12)}
    large = msgspec.structs.replace(one, facts=msgspec.structs.replace(one.facts, files=files))
    small = msgspec.json.decode(packed(large), type=HostReport)
    assert len(packed(large)) < MAX_REPORT and small.facts is None and "left out" in small.problems[0].what
    assert small.verdict == one.verdict


def test_it_is_sent_again_with_the_token(one, server, tmp_path):
    (tmp_path / "token").write_text("abc\n")
    slept = []
    place = Destination(f"{server.url}/in/", str(tmp_path / "token"), server.ca, tmp_path / "spool", sleep=slept.append)
    server.answers = [503, 503]
    place.checked().send(one)
    assert slept == [1.0, 4.0] and [a[2] for a in server.asked] == [503, 503, 201]
    assert {a[3] for a in server.asked} == {"Bearer abc"}
    assert server.put == {f"/in/{file_name('web1')}": packed(one)}
    assert not (tmp_path / "spool").exists()


def test_what_was_not_sent_waits_and_goes_first(one, server, tmp_path):
    spool = tmp_path / "spool"
    place = Destination(server.url, "", server.ca, spool, sleep=lambda _s: None)
    server.answers = [503] * 4
    with pytest.raises(Unreachable):
        place.send(one)
    (waiting,) = spool.iterdir()
    assert waiting.read_bytes() == packed(one) and stat.S_IMODE(waiting.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    later = msgspec.structs.replace(one, at="2026-11-24T04:00:00Z")
    server.asked.clear()
    place.send(later)
    assert list(spool.iterdir()) == [] and len(server.asked) == 2
    assert server.put[f"/{file_name('web1')}"] == packed(later)


def test_the_spool_stays_small_and_a_refusal_is_not_repeated(one, server, tmp_path):
    slept = []
    place = Destination(server.url, "", server.ca, tmp_path / "spool", sleep=slept.append)
    for n in range(SPOOLED + 4):
        server.answers = [403]
        later = msgspec.structs.replace(one, at=(NOW + timedelta(hours=n)).strftime("%Y-%m-%dT%H:%M:%SZ"))
        with pytest.raises(Unreachable):
            place.send(later)
    names = sorted(p.name for p in (tmp_path / "spool").iterdir())
    assert len(names) == SPOOLED and names[-1] == "2026-11-24T140000Z.json" and slept == []


def test_a_place_that_can_never_be(tmp_path):
    (tmp_path / "bad").write_text("two words")
    for place in (Destination("http://example.org"), Destination(str(tmp_path / "nowhere")),
                  Destination("https://example.org", str(tmp_path / "nowhere")),
                  Destination("https://example.org", str(tmp_path / "bad"))):  # fmt: skip
        with pytest.raises(InvalidInput):
            place.checked()
