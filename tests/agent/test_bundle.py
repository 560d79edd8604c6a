# SPDX-License-Identifier: Apache-2.0
"""Bundles: the same bytes each time, opened as the files they were made of, and nothing that leads out of them."""

from __future__ import annotations

import json
from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.bundle import MAX_BUNDLE, _unsafe, create, expired, opened, parse
from orchestrator.documents.base import pretty
from orchestrator.documents.bundle import Bundle
from orchestrator.errors import InvalidInput, KdoError, PolicyError
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.load import load
from tests.agent.conftest import POLICY, WAIVERS

K = knowledge()


@pytest.fixture
def site(tmp_path):
    """A policy in a folder of its own that builds on another beside it, and on a shipped one."""
    (tmp_path / "site/edge").mkdir(parents=True)
    (tmp_path / "site/base.yaml").write_text(POLICY % "default")
    (tmp_path / "site/edge/policy.yaml").write_text(POLICY % "../base.yaml, aws")
    (tmp_path / "site/w.yaml").write_text(WAIVERS)
    return tmp_path / "site"


def made(site, **more) -> Bundle:
    return create(str(site / "edge/policy.yaml"), [str(site / "w.yaml")], more.pop("serial", 3), None, K, **more)


def test_the_same_input_is_the_same_bytes(site):
    assert pretty(made(site)) == pretty(made(site))
    bundle = made(site)
    assert sorted(bundle.files) == ["policy/base.yaml", "policy/edge/policy.yaml", "waivers/1-w.yaml"]
    assert bundle.policy == "policy/edge/policy.yaml" and bundle.policy_name == "fleet"
    assert pretty(made(site, serial=4)) != pretty(bundle)


def test_opened_it_is_the_policy_that_it_was_made_of(site):
    orders = opened(parse(pretty(made(site)), "x"), K, "ann")
    policy, before = orders.pipeline.policy, load(str(site / "edge/policy.yaml"), K)
    assert policy.hash == before.hash and [r.id for r in policy.rules] == [r.id for r in before.rules]
    assert policy.file == "bundle-3/policy/edge/policy.yaml" and policy.signers[0] == "bundle-3/policy/base.yaml: ann"
    assert [w.id for w in orders.waivers] == ["w"] and orders.waivers[0].where.startswith("bundle-3/waivers/1-w.yaml:5")
    assert (orders.policy.serial, orders.policy.signer) == (3, "ann")


def test_a_shipped_policy_needs_no_file():
    bundle = create("aws", [], 1, None, K)
    assert bundle.files == {} and bundle.policy == "aws"
    assert opened(bundle, K, "ann").policy.policy_hash == load("aws", K).hash


def test_what_is_wrong_with_the_policy_is_said_when_it_is_made(site, tmp_path):
    (site / "base.yaml").write_text(POLICY % "nowhere.yaml")
    with pytest.raises(PolicyError, match="cannot read"):
        made(site)
    (site / "base.yaml").write_text(POLICY % "default")
    (site / "w.yaml").write_text(WAIVERS.replace("check: target", "check: tarrget"))
    with pytest.raises(InvalidInput) as e:
        made(site)
    assert "no check 'tarrget'" in e.value.problems[0].why
    (site / "w.yaml").write_text(WAIVERS)
    (site / "edge/policy.yaml").write_text(POLICY % str(site / "base.yaml"))  # an absolute path exists only here
    with pytest.raises(InvalidInput, match="does not work from a bundle"):
        made(site)


@pytest.mark.parametrize(
    "name",
    ["../x.yaml", "/etc/x", "a/../../x", "a//b", "./x", "", "a/", "x\n", "a\\b", "x" * 300, "/".join("a" * 20), "\x00"],
)
def test_names_that_lead_out_are_refused(site, name):
    data = json.loads(pretty(made(site)))
    data["files"][name] = "x"
    with pytest.raises(InvalidInput, match="cannot be a file of a bundle"):
        parse(json.dumps(data).encode(), "x")


@given(st.text(max_size=40))
def test_a_name_that_is_let_through_stays_inside(name):
    import posixpath

    if not _unsafe(name):
        assert posixpath.normpath(posixpath.join("/r", name)) == f"/r/{name}"


@given(st.binary(max_size=400))
def test_whatever_it_is_it_ends_as_an_error_of_ours(data):
    with pytest.raises(InvalidInput):
        parse(data, "x")


def test_a_damaged_one_is_no_bundle(site):
    data = pretty(made(site))
    for bad in (data[:-40], data[:100], b"[]", b"[" * 100_000, data.replace(b'"Bundle"', b'"Bunble"'),
                data.replace(b'"1.0"', b'"2.0"'), data.replace(b'"serial": 3', b'"serial": 0'), b" " * (MAX_BUNDLE + 1),
                data.replace(b'"waivers/1-w.yaml"\n', b'"waivers/2.yaml"\n')):  # fmt: skip
        assert bad != data
        with pytest.raises(InvalidInput):
            parse(bad, "x")


def test_a_policy_in_it_reads_nothing_else_of_the_machine(site, tmp_path):
    outside = tmp_path / "outside.yaml"
    outside.write_text(POLICY % "default")
    bundle = made(site)
    for name in (str(outside), "../../../../../../../../../.." + str(outside)):
        files = {**bundle.files, "policy/base.yaml": POLICY % name}
        with pytest.raises(PolicyError, match="is not part of the bundle"):
            opened(msgspec.structs.replace(bundle, files=files), K, "ann")


def test_one_file_that_is_also_a_folder(site):
    bundle = made(site)
    files = {**bundle.files, "policy/base.yaml/x": "x"}
    with pytest.raises(KdoError, match="cannot be unpacked"):
        opened(msgspec.structs.replace(bundle, files=files), K, "ann")


def test_other_knowledge_must_be_allowed(site):
    bundle = msgspec.structs.replace(made(site), policy_hash="0" * 64, tool="9.9")
    with pytest.raises(InvalidInput, match="another version") as e:
        opened(bundle, K, "ann")
    assert "made with version 9.9" in e.value.problems[0].why
    assert opened(msgspec.structs.replace(bundle, any_tool=True), K, "ann").policy.policy_hash != "0" * 64


def test_the_last_day_counts_to_its_end(site):
    bundle = msgspec.structs.replace(made(site), expires="2026-11-24")
    assert expired(bundle, date(2026, 11, 24), "x") is None
    assert "expired" in expired(bundle, date(2026, 11, 25), "x").what
    with pytest.raises(InvalidInput, match="is not a day"):
        parse(pretty(msgspec.structs.replace(bundle, expires="tomorrow")), "x")


def test_messages_name_the_bundle_and_no_directory_of_a_moment(site):
    bundle = made(site)
    files = {**bundle.files, "policy/base.yaml": (POLICY % "default") + "  rulez: []\n"}
    with pytest.raises(PolicyError) as e:
        opened(msgspec.structs.replace(bundle, files=files), K, "ann")
    assert e.value.problems[0].where == "bundle-3/policy/base.yaml:6:3"
