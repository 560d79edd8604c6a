# SPDX-License-Identifier: Apache-2.0
"""SUSE on a simulated host: applied, failed at every command, killed at every durable call, rolled back."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from family_host import apply_everywhere, fresh, rollback_everywhere  # noqa: E402
from kdo_txn_suse import summary  # noqa: E402
from suse_host import CONFIG, DEFAULTS, GRUB2, LINKS, STOCK, WANTED, SuseHost, SuseTools, change  # noqa: E402
from test_txn_fake import LOADED  # noqa: E402


@pytest.fixture(params=[True, False], ids=["installed", "bare"])
def host(request, tmp_path):
    made = SuseHost(tmp_path / "source", installed=request.param)
    made.installed = request.param
    return made


def run(host, tools=None, document=None):
    tools = tools or SuseTools(host)
    return kdo_txn.run(document or change(host, host.installed), root=host.root, runner=tools), tools


def test_apply_and_again(host):
    document = change(host, host.installed)
    result, tools = run(host, document=document)
    assert result["state"] == "committed", result
    assert host.menu() == ["quiet", WANTED, "crash_kexec_post_notifiers"]
    assert host.variables() == ("", f"quiet {WANTED} crash_kexec_post_notifiers")
    assert f'KDUMP_CRASHKERNEL="{WANTED}"' in host.get(CONFIG) and 'KDUMP_CPUS="1"' in host.get(CONFIG)
    assert host.get("/var/lib/kdump/initrd").startswith("new image") and host.get(LOADED) == "1\n"
    assert host.here(LINKS[0])
    asked = [argv[1:] for name, argv in tools.calls if name == "pbl"]
    assert asked == [["--del-option", "fadump", "--add-option", "crash_kexec_post_notifiers", "--config"]]
    assert not any("restart" in argv for _, argv in tools.calls)  # the unit would start kdump-commandline beside us
    again = kdo_txn.run(document, root=host.root, runner=SuseTools(host))
    assert again["state"] == "committed" and not again["changed"]


def test_rollback_is_the_same_tree(host):
    before = host.picture()
    assert run(host)[0]["state"] == "committed"
    back = kdo_txn.rollback(host.root, runner=SuseTools(host))
    assert back["state"] == "rolled-back", back
    assert host.picture() == before


def test_failure_of_every_command(host, tmp_path):
    before = host.picture()
    tools = SuseTools(fresh(host, tmp_path / "b"))
    run_on = tools.host
    assert kdo_txn.run(change(host, host.installed), root=run_on.root, runner=tools)["state"] == "committed"
    asked = {name for name, _ in tools.calls} - {"unit-state", "rpm-list", "units-reload", "zypper-simulate"}
    assert asked >= {"pbl", "kdump-commandline", "mkdumprd", "load_sh"}
    for name in sorted(asked):
        for how in ("at once", "late"):
            work = fresh(host, tmp_path / "work")
            result = kdo_txn.run(change(work, host.installed), root=work.root, runner=Once(work, {name: how}))
            assert result["state"] == "undone", (name, how, result)
            assert work.picture() == before, (name, how)


class Once(SuseTools):
    """Fails the first time only: undoing needs the same tools."""

    def __call__(self, name, argv, timeout):
        answer = super().__call__(name, argv, timeout)
        if answer[0] and name.replace(".", "_") in self.fail:
            self.fail = {}
        return answer


@pytest.mark.parametrize(
    ("fail", "why"),
    [
        ({"pbl": "does nothing"}, "pbl ended well, but /etc/default/grub says nothing of crash_kexec_post_notifiers"),
        ({"mkdumprd": "does nothing"}, "built no /var/lib/kdump/initrd"),
    ],
)
def test_a_tool_that_ends_well_and_does_nothing(fail, why, tmp_path):
    host = SuseHost(tmp_path)
    host.installed, before = True, host.picture()
    document = change(host)
    document["steps"] = [s for s in document["steps"] if s.get("name") != "kdump-commandline"]
    document["expect"] = []
    result, _ = run(host, SuseTools(host, fail), document)
    assert result["state"] == "undone" and why in result["error"]["why"], result
    assert host.picture() == before


def test_another_boot_loader_is_refused(tmp_path):
    host = SuseHost(tmp_path)
    host.installed = True
    host.put("/etc/sysconfig/bootloader", 'LOADER_TYPE="u-boot"\n')
    before = host.picture()
    result, _ = run(host)
    assert result["state"] == "refused" and "u-boot" in result["error"]["why"] and host.picture() == before


def test_several_values_are_one_option(tmp_path):
    host = SuseHost(tmp_path)
    host.installed = True
    pair = ["crashkernel=72M,low", "crashkernel=300M,high"]
    document = change(host)
    document["steps"] = [
        {"op": "action", "name": "pbl-arguments", "ensure": pair, "remove": []},
    ]
    document["expect"] = []
    result, tools = run(host, document=document)
    assert result["state"] == "committed" and host.menu() == ["quiet", *pair]
    assert next(argv for name, argv in tools.calls if name == "pbl")[1:3] == ["--add-option", " ".join(pair)]
    undone = kdo_txn.rollback(host.root, runner=SuseTools(host))
    assert undone["state"] == "rolled-back" and host.menu() == ["crashkernel=200M", "quiet"]


def test_a_menu_that_somebody_made_anew_since_is_made_anew_again(tmp_path):
    host = SuseHost(tmp_path)
    host.installed = True
    assert run(host)[0]["state"] == "committed"
    host.put(GRUB2, host.get(GRUB2) + "# a newer kernel\n", 0o600, age=5)
    back = kdo_txn.rollback(host.root, runner=SuseTools(host))
    assert back["state"] == "rolled-back" and host.menu() == ["crashkernel=200M", "quiet"]
    assert "newer kernel" not in host.get(GRUB2)


def test_somebody_edited_the_defaults_since(tmp_path):
    host = SuseHost(tmp_path)
    host.installed = True
    assert run(host)[0]["state"] == "committed"
    host.put(DEFAULTS, host.get(DEFAULTS) + "GRUB_TIMEOUT=3\n")
    back = kdo_txn.rollback(host.root, runner=SuseTools(host))
    assert back["state"] == "refused" and DEFAULTS in back["error"]["why"]


def test_what_zypper_would_do_besides(tmp_path):
    host = SuseHost(tmp_path, installed=False)
    host.installed, before = False, host.picture()
    result, _ = run(host, SuseTools(host, {"zypper": "more"}))
    assert result["state"] == "undone" and "to-upgrade glibc" in result["error"]["why"] and host.picture() == before
    assert run(host, SuseTools(host, {"zypper": "reboot advised"}))[0]["state"] == "committed"
    assert host.get(CONFIG) != STOCK
    for said in (
        "",
        "<install-summary></install-summary>",
        "<install-summary><to-install><solvable/></to-install></install-summary>",
    ):
        with pytest.raises(ValueError):
            summary(said)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_killed_anywhere_while_applying(host, quick, tmp_path):
    assert apply_everywhere(host, change(host, host.installed), SuseTools, tmp_path) > 120


def test_killed_anywhere_while_rolling_back(host, quick, tmp_path):
    assert rollback_everywhere(host, change(host, host.installed), SuseTools, tmp_path) > 40
