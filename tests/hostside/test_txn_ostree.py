# SPDX-License-Identifier: Apache-2.0
"""rpm-ostree on a simulated host: a deployment for the arguments, taken out again or changed back."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from family_host import apply_everywhere, differences, fresh, rollback_everywhere  # noqa: E402
from kdo_txn_ostree import difference  # noqa: E402
from ostree_host import OLD, OstreeHost, OstreeTools, change  # noqa: E402

NEW = ["root=UUID=x", "rw", "quiet", "crashkernel=512M"]


@pytest.fixture
def host(tmp_path):
    return OstreeHost(tmp_path / "source")


def run(host, tools=None, document=None):
    return kdo_txn.run(document or change(host), root=host.root, runner=tools or OstreeTools(host))


def roll_back(host):
    return kdo_txn.rollback(host.root, runner=OstreeTools(host))


def test_words_as_often_as_they_are_there():
    now = ["a=1", "crashkernel=1M", "crashkernel=2M", "x", "x"]
    assert difference(now, ["crashkernel=2M", "x"], []) == (["crashkernel=1M", "x"], [])
    assert difference(now, ["crashkernel=3M"], ["a"]) == (
        ["a=1", "crashkernel=1M", "crashkernel=2M"],
        ["crashkernel=3M"],
    )
    assert difference(["crash-kernel=1"], ["crash_kernel=1"], []) == (["crash-kernel=1"], ["crash_kernel=1"])
    assert difference(now, ["a=1"], ["absent"]) == ([], [])


def test_apply_again_and_rollback(host):
    before, document = host.picture(), change(host)
    tools = OstreeTools(host)
    result = run(host, tools, document)
    assert result["state"] == "committed" and host.next() == NEW, result
    asked = next(argv[2:] for name, argv in tools.calls if name == "rpm-ostree-kargs" and len(argv) > 2)
    assert asked == [
        "--delete=crashkernel=64M",
        "--delete=crashkernel=32M",
        "--delete=foo",
        "--append=crashkernel=512M",
    ]
    again = run(host, document=document)
    assert again["state"] == "committed" and not again["changed"]
    assert roll_back(host)["state"] == "rolled-back"
    assert differences(before, host.picture()) == {} and host.deployments() == [["booted", OLD]]


def test_rolled_back_after_the_reboot(host):
    assert run(host)["state"] == "committed"
    host.deploy([["booted", " ".join(NEW)], ["older", OLD]])
    back = roll_back(host)
    assert back["state"] == "rolled-back" and sorted(host.next()) == sorted(OLD.split())
    assert any("next boot" in text for text in back["put_back"])


def test_somebodys_update_that_came_after_is_kept(host):
    assert run(host)["state"] == "committed"
    host.deploy([["pending-theirs", " ".join([*NEW, "update"])], ["booted", OLD]])
    assert roll_back(host)["state"] == "rolled-back"
    assert sorted(host.next()) == sorted([*OLD.split(), "update"])


def test_a_pending_deployment_is_refused(host):
    host.deploy([["pending-theirs", OLD], ["booted", OLD]])
    before = host.picture()
    result = run(host)
    assert result["state"] == "refused" and "pending" in result["error"]["why"]
    assert differences(before, host.picture()) == {}


def test_failure_of_every_command(host, tmp_path):
    before = host.picture()
    for name in ("kdump-rebuild", "kdump-restart", "unit-enable"):
        work = fresh(host, tmp_path / "work")
        result = run(work, OstreeTools(work, {name: "late"}))
        assert result["state"] == "undone" and differences(before, work.picture()) == {}, (name, result)


class Lying(OstreeTools):
    """Ends well, and does nothing (as --append-if-missing would)."""

    def rpm_ostree_kargs(self, argv):
        return super().rpm_ostree_kargs(argv[:2])


def test_a_tool_that_does_nothing(host):
    before = host.picture()
    result = run(host, Lying(host))
    assert result["state"] == "undone" and "not as asked" in result["error"]["why"]
    assert differences(before, host.picture()) == {}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_killed_anywhere_while_applying(host, quick, tmp_path):
    assert apply_everywhere(host, change(host), OstreeTools, tmp_path) > 50


def test_killed_anywhere_while_rolling_back(host, quick, tmp_path):
    assert rollback_everywhere(host, change(host), OstreeTools, tmp_path) > 15
