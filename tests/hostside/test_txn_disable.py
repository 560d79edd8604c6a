# SPDX-License-Identifier: Apache-2.0
"""The way to no kdump at all, and back, also when it stops in the middle."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from test_txn_fake import DEFAULTS, GRUB, ID, LOADED, SNIPPET, UNIT_LINK, Host, Tools, sha  # noqa: E402

TEXT = "# Managed\nset -f\nkdo_kept=\nset +f\n"


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    host.link(UNIT_LINK, "/lib/systemd/system/kdump-tools.service")
    host.before = host.picture()
    return host


def off(host):
    steps = [
        {"op": "assign", "path": DEFAULTS, "assignments": [["USE_KDUMP", "0"]], "before_sha256": sha(host.get(DEFAULTS)), "after_sha256": None},
        {"op": "write", "path": SNIPPET, "text": TEXT, "mode": "0644", "before_sha256": None},
        {"op": "action", "name": "grub-regenerate"},
        {"op": "service-disable", "unit": "kdump-tools.service"},
        {"op": "action", "name": "kdump-unload"},
    ]  # fmt: skip
    expect = [
        {"kind": "words", "path": GRUB, "line_prefix": "linux", "absent": ["crashkernel="]},
        {"kind": "value", "path": LOADED, "value": "0"},
    ]
    return {"format_version": "1.0", "id": ID, "steps": steps, "expect": expect}


def test_off_and_back(host):
    result = kdo_txn.run(off(host), root=host.root, runner=Tools(host))
    assert result["state"] == "committed", result
    assert host.get(LOADED).strip() == "0" and not host.here(UNIT_LINK) and "crashkernel" not in host.get(GRUB)
    assert 'USE_KDUMP="0"' in host.get(DEFAULTS)
    assert kdo_txn.run(off(host), root=host.root, runner=Tools(host))["changed"] is False
    assert kdo_txn.rollback(host.root, runner=Tools(host))["state"] == "rolled-back"
    after = host.picture()
    assert host.get(LOADED).strip() == "1" and after == host.before


@pytest.mark.parametrize("name", ["grub-regenerate", "unit-disable", "kdump-unload"])
@pytest.mark.parametrize("how", ["at once", "late"])
def test_a_failure_puts_everything_back(host, name, how):
    result = kdo_txn.run(off(host), root=host.root, runner=Tools(host, fail={name: how}))
    assert result["state"] in ("undone", "undo-incomplete")
    if name == "kdump-unload" and how == "late":
        assert host.get(LOADED).strip() == "1"  # it had gone, and is loaded again
    if result["state"] == "undone":
        assert host.picture() == host.before


def test_a_locked_kernel_refuses_before_anything_is_changed(host):
    host.put("/proc/sys/kernel/kexec_load_disabled", "1\n")
    before = host.picture()
    result = kdo_txn.run(off(host), root=host.root, runner=Tools(host))
    assert result["state"] == "refused" and "unloaded" in result["error"]["what"]
    assert host.picture() == before


@pytest.mark.parametrize("value", ["halt -f", "reboot -f", "poweroff -f"])
def test_failure_commands_that_are_known(host, value):
    change = off(host)
    change["steps"] = [{**change["steps"][0], "assignments": [["KDUMP_FAIL_CMD", value]]}]
    change["expect"] = []
    assert kdo_txn.run(change, root=host.root, runner=Tools(host))["state"] == "committed"


def test_other_failure_commands_are_refused(host):
    change = off(host)
    change["steps"] = [{**change["steps"][0], "assignments": [["KDUMP_FAIL_CMD", "reboot -f; id"]]}]
    assert kdo_txn.run(change, root=host.root, runner=Tools(host))["state"] == "refused"
