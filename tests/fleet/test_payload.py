# SPDX-License-Identifier: Apache-2.0
"""The program that is piped to hosts: the same bytes every time, in the Python of old hosts, and whatever a host prints is only data."""

from __future__ import annotations

import ast
import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet.collect import interest
from orchestrator.fleet.payload import _START, Payload, asked, build, sources

MARK = "kdo-" + 32 * "0"


def test_the_same_arguments_give_the_same_bytes():
    one, two = (build(*asked(interest(), ["/var/crash"]), MARK).text("web1", ["web"], ["blue"]) for _ in range(2))
    assert one == two and len(one) < 64 << 10


def test_every_module_comes_after_what_it_imports():
    names = [name for name, _ in sources()]
    assert names[-1] == "kdo_probe" and len(set(names)) == len(names)
    for at, (_, text) in enumerate(sources()):
        for node in ast.walk(ast.parse(text, feature_version=(3, 6))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kdo_"):
                assert node.module in names[:at]


def test_the_start_is_python_of_old_hosts():
    ast.parse(_START, feature_version=(3, 6))


@given(st.text(), st.lists(st.text()), st.lists(st.text()))
def test_names_and_tags_are_data(host, groups, tags):
    line = Payload(b"", MARK).text(host, groups, tags)
    call = ast.parse(line).body[0].value  # type: ignore[attr-defined]
    assert call.func.id == "main" and line.count(b"\n") == 1 and line.isascii()


@given(st.binary(), st.binary(), st.dictionaries(st.text(), st.text()))
def test_an_answer_is_found_between_anything(before, after, document):
    payload, said = Payload(b"", MARK), json.dumps(document).encode()
    text = b"%b\n%b facts\n%b\n%b end\n%b" % (before, MARK.encode(), said, MARK.encode(), after)
    assert payload.answer(text) == ("facts", said)
    assert payload.answer(before + after) == ("", b"")
    assert payload.answer(text[: len(before) + 50]) == ("", b"")
