# SPDX-License-Identifier: Apache-2.0
"""Azure Linux 3 on a simulated host; above all: the host's own initrd stays what it was."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from azurelinux_host import GRUB2, IMAGE, INITRD, AzureHost, AzureTools, change  # noqa: E402
from family_host import apply_everywhere, differences, fresh, rollback_everywhere  # noqa: E402


@pytest.fixture
def host(tmp_path):
    return AzureHost(tmp_path / "source")


def run(host, tools=None, document=None):
    return kdo_txn.run(document or change(host), root=host.root, runner=tools or AzureTools(host))


def test_apply_again_and_rollback(host):
    before, document = host.picture(), change(host)
    assert run(host, document=document)["state"] == "committed"
    assert "crashkernel=512M quiet" in host.get(GRUB2) and host.get(IMAGE).startswith("new image")
    assert host.get(INITRD) == "the host's own"
    again = run(host, document=document)
    assert again["state"] == "committed" and not again["changed"]
    assert kdo_txn.rollback(host.root, runner=AzureTools(host))["state"] == "rolled-back"
    assert differences(before, host.picture()) == {}


def test_the_hosts_own_initrd_is_put_back(host):
    before = host.picture()
    result = run(host, AzureTools(host, {"initrd": "overwritten"}))
    assert result["state"] == "undone" and "6478" in result["error"]["why"], result
    assert host.get(INITRD) == "the host's own" and differences(before, host.picture()) == {}


def test_a_menu_that_was_not_generated_is_refused(host):
    host.put(GRUB2, "load_env -f $bootprefix/mariner.cfg\nlinux $mariner_linux $mariner_cmdline\n", 0o600)
    before = host.picture()
    result = run(host)
    assert result["state"] == "refused" and "grub2-mkconfig" in result["error"]["why"]
    assert differences(before, host.picture()) == {}


def test_packages_are_not_installed(host):
    document = change(host)
    document["steps"].insert(0, {"op": "package-install", "names": ["kexec-tools"]})
    assert run(host, document=document)["state"] == "refused"


def test_failure_of_every_command(host, tmp_path):
    before = host.picture()
    for name in ("grub2-regenerate", "kdump-rebuild", "kdump-restart", "unit-enable"):
        for how in ("at once", "late"):
            work = fresh(host, tmp_path / "work")
            tools = AzureTools(work, {name: how})
            result = run(work, tools)
            if result["state"] != "undone":  # loading the old one again needs the same tool: the undo says so
                assert name == "kdump-restart" and result["state"] == "undo-incomplete", (name, how, result)
                assert kdo_txn.recover(work.root, runner=AzureTools(work), wait=0)["error"] is None
            assert differences(before, work.picture()) == {}, (name, how)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_killed_anywhere_while_applying(host, quick, tmp_path):
    assert apply_everywhere(host, change(host), AzureTools, tmp_path) > 80


def test_killed_anywhere_while_rolling_back(host, quick, tmp_path):
    assert rollback_everywhere(host, change(host), AzureTools, tmp_path) > 20
