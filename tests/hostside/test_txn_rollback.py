# SPDX-License-Identifier: Apache-2.0
"""Taking a committed transaction back, with and without somebody having changed things since."""

import json
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from test_txn_fake import DEFAULTS, GRUB, LOADED, NOTIFIERS, SNIPPET, STATE, SYSCTL, Host, Tools, change, sha  # noqa: E402


@pytest.fixture(params=[True, False], ids=["installed", "bare"])
def host(request, tmp_path):
    host = Host(tmp_path, installed=request.param)
    host.before = host.picture()
    assert kdo_txn.run(change(host, request.param), root=host.root, runner=Tools(host))["state"] == "committed"
    return host


def back(host, tools=None, **more):
    return kdo_txn.rollback(host.root, runner=tools or Tools(host), **more)


def test_everything_goes_back(host):
    result = back(host)
    assert result["state"] == "rolled-back" and result["changed"] and result["error"] is None
    assert not result["reboot"]  # this boot still runs with the old arguments
    assert {SNIPPET, GRUB, NOTIFIERS} <= set(result["put_back"])
    assert host.picture() == host.before
    assert back(host)["state"] == "nothing"


def test_after_a_reboot_another_one_is_needed(host):
    host.put("/proc/sys/kernel/random/boot_id", "boot-two\n")
    assert back(host)["reboot"]


def test_check_writes_nothing(host):
    now = host.picture()
    result = back(host, check=True)
    assert result["state"] == "check" and result["changed"] and SNIPPET in result["put_back"]
    assert host.picture() == now
    done = back(host)
    assert done["state"] == "rolled-back"
    foretold, came = set(result["put_back"]), {x for x in done["put_back"] if x.startswith("/")}
    assert came <= foretold  # what goes with a package that is removed is foretold by its files


def test_later_edits_are_kept_unless_forced(host):
    host.put(SNIPPET, "# mine now\n")
    now = host.picture()
    result = back(host)
    assert result["state"] == "refused" and SNIPPET in result["error"]["why"]
    assert host.picture() == now
    result = back(host, force=True)
    assert result["state"] == "rolled-back" and host.picture() == host.before
    folder = host.real(STATE + "/tx/" + result["transaction"])
    kept = [name for name in os.listdir(folder) if name.startswith("overwritten")]
    assert len(kept) == 1 and open(os.path.join(folder, kept[0])).read() == "# mine now\n"


def test_a_newer_boot_menu_is_made_anew_not_replaced(tmp_path):
    host = Host(tmp_path)
    kdo_txn.run(change(host), root=host.root, runner=Tools(host))
    os.chmod(host.real(GRUB), 0o644)
    host.put(GRUB, host.get(GRUB) + "menuentry 'a newer kernel' { }\n")
    tools = Tools(host)
    result = back(host, tools)
    assert result["state"] == "rolled-back"
    assert "grub-regenerate" in [name for name, _ in tools.calls]
    assert "crashkernel=384M-:128M" in host.get(GRUB) and "512M" not in host.get(GRUB)


def test_derived_files_that_changed_since_stay(tmp_path):
    host = Host(tmp_path)
    kdo_txn.run(change(host), root=host.root, runner=Tools(host))
    image = "/var/lib/kdump/initrd.img-6.1.0-56-cloud-amd64"
    host.drop(image)
    host.put(image, "made by a kernel upgrade")
    host.put("/var/lib/kdump/initrd.img-6.1.0-99", "another kernel's")
    assert back(host)["state"] == "rolled-back"
    assert host.get(image) == "made by a kernel upgrade" and host.here("/var/lib/kdump/initrd.img-6.1.0-99")


def test_knob_that_somebody_set_since_stays(tmp_path):
    host = Host(tmp_path)
    kdo_txn.run(change(host), root=host.root, runner=Tools(host))
    host.put("/proc/sys/kernel/panic", "30\n")
    assert back(host)["state"] == "rolled-back"
    assert host.get("/proc/sys/kernel/panic").strip() == "30" and host.get(NOTIFIERS).strip() == "N"


def test_packages_installed_by_others_stay(tmp_path):
    host = Host(tmp_path, installed=False)
    kdo_txn.run(change(host, False), root=host.root, runner=Tools(host))
    host.set_packages({**host.packages(), "makedumpfile": "installed"})
    assert back(host)["state"] == "rolled-back"
    assert set(host.packages()) == {"bash", "grub-common", "makedumpfile"}


def test_one_after_the_other(host):
    steps = [{"op": "write", "path": SYSCTL, "text": "kernel.panic = 5\n", "before_sha256": sha(host.get(SYSCTL))}]
    middle = host.picture()
    second = change(host, steps=steps, expect=[], id="cd" * 32)
    assert kdo_txn.run(second, root=host.root, runner=Tools(host))["state"] == "committed"
    assert back(host)["state"] == "rolled-back" and host.picture() == middle
    assert back(host)["state"] == "rolled-back" and host.picture() == host.before


def test_that_fails_is_finished_later(host):
    tools = Tools(host, {"kdump-reload": "at once", "apt-purge": "at once"})
    result = back(host, tools)
    assert result["state"] == "undo-incomplete" and result["error"]["why"]
    result = back(host)
    assert result["state"] == "rolled-back" and result["error"] is None
    assert host.picture() == host.before
    assert host.get(LOADED).strip() in "01" and host.here(DEFAULTS) == (DEFAULTS in host.before)


def test_nothing_to_roll_back(tmp_path):
    host = Host(tmp_path)
    assert back(host)["state"] == "nothing" and not host.here(STATE)


def test_listing(host):
    rows = kdo_txn.status(host.root)["transactions"]
    assert rows[0]["state"] == "committed" and rows[0]["title"] == "all kinds" and rows[0]["began"].endswith("Z")


def test_by_hand_on_the_host(monkeypatch, capsys):
    asked = []

    def rollback(**how):
        asked.append(how)
        return {"state": "rolled-back", "error": {"what": "x"} if how["force"] else None}

    monkeypatch.setattr(kdo_txn, "rollback", rollback)
    assert kdo_txn.main(["rollback"]) == 0 and json.loads(capsys.readouterr().out)["state"] == "rolled-back"
    assert kdo_txn.main(["rollback", "--force", "--check", "--state-dir", "/x"]) == 1
    assert asked == [
        {"state_dir": STATE, "force": False, "check": False},
        {"state_dir": "/x", "force": True, "check": True},
    ]
    assert kdo_txn.main(["roll-back"]) == 2 and "usage" in capsys.readouterr().err
