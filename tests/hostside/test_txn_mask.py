# SPDX-License-Identifier: Apache-2.0
"""Units that are masked and unmasked: by whom, what is refused, and nothing in between however it stops."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from family_host import apply_everywhere, rollback_everywhere  # noqa: E402
from suse_host import LINKS, SuseHost, SuseTools  # noqa: E402
from test_txn_fake import ID, MASK, UNIT_LINK, Host, Tools  # noqa: E402

UNIT = "kdump-tools.service"
OFF = ("service-disable", "service-mask")
ON = ("service-unmask", "service-enable")


def document(*operations, unit=UNIT, **more):
    steps = [{"op": operation, "unit": unit} for operation in operations]
    return {"format_version": "1.0", "id": ID, "steps": steps, "expect": [], **more}


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    host.link(UNIT_LINK, "/lib/systemd/system/" + UNIT)
    return host


def run(host, *operations, **more):
    return kdo_txn.run(document(*operations), root=host.root, runner=Tools(host), **more)


def outside(host):
    """The host but for our journals, which only grow."""
    return {p: row for p, row in host.picture().items() if "/tx/" not in p and not p.endswith("/tx")}


def test_masked_and_back(host):
    before = host.picture()
    predicted = run(host, *OFF, check=True)
    assert [s["result"] for s in predicted["steps"]] == ["would change"] * 2 and host.picture() == before
    assert [s["what"] for s in predicted["steps"]] == [f"disable {UNIT}", f"mask {UNIT}"]
    assert run(host, *OFF)["state"] == "committed"
    assert os.readlink(host.real(MASK)) == "/dev/null" and not host.here(UNIT_LINK)
    assert run(host, *OFF)["changed"] is False
    back = kdo_txn.rollback(host.root, runner=Tools(host))
    assert back["state"] == "rolled-back" and {MASK, UNIT_LINK} <= set(back["put_back"]), back
    assert host.picture() == before


def test_unmasked_and_back(host):
    run(host, *OFF)
    masked = host.picture()
    assert run(host, *ON)["state"] == "committed" and host.here(UNIT_LINK) and not host.here(MASK)
    assert run(host, *ON)["changed"] is False
    assert kdo_txn.rollback(host.root, runner=Tools(host))["state"] == "rolled-back"
    assert not host.here(UNIT_LINK) and os.readlink(host.real(MASK)) == "/dev/null"
    paths = [p for p in host.picture() if not p.startswith("/var/lib/kdump-orchestrator")]
    assert paths == [p for p in masked if not p.startswith("/var/lib/kdump-orchestrator")]


def test_a_unit_of_the_administrator_is_not_written_over(host):
    host.put(MASK, "[Service]\nExecStart=/bin/true\n")
    tools = Tools(host)
    tools.unit_state = lambda _argv: (0, "enabled\n")
    before = host.picture()
    result = kdo_txn.run(document(*OFF), root=host.root, runner=tools)
    assert result["state"] == "refused" and "a unit of its own" in result["error"]["why"]
    assert host.picture() == before


def test_a_mask_that_nobody_wants_away_still_refuses(host):
    host.link(MASK, "/dev/null")
    result = run(host, "service-enable")
    assert result["state"] == "refused" and result["error"]["why"] == "somebody masked it"
    assert (
        kdo_txn.run(document("service-mask", unit="sshd.service"), root=host.root, runner=Tools(host))["state"]
        == "refused"
    )


@pytest.mark.parametrize("operations,name", [(OFF, "unit-mask"), (ON, "unit-unmask")])
@pytest.mark.parametrize("how", ["at once", "late", "nothing"])
def test_a_command_that_fails_leaves_the_host_as_before(host, operations, name, how):
    if operations is ON:
        run(host, *OFF)
    before = outside(host)
    tools = Tools(host, fail={} if how == "nothing" else {name: how})
    if how == "nothing":  # it says that it did it
        setattr(tools, name.replace("-", "_"), lambda _argv: (0, ""))
    result = kdo_txn.run(document(*operations), root=host.root, runner=tools)
    assert result["state"] == "undone", result
    assert outside(host) == before


def test_killed_anywhere(tmp_path):
    source = SuseHost(tmp_path / "source")
    for link in LINKS:
        source.link(link, "/usr/lib/systemd/system/" + os.path.basename(link))
    off = document(*OFF, unit="kdump.service", family="suse")
    assert apply_everywhere(source, off, SuseTools, tmp_path) > 10
    assert rollback_everywhere(source, off, SuseTools, tmp_path) > 10
