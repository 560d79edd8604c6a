# SPDX-License-Identifier: Apache-2.0
"""The Red Hat family's tools behind the engine: all of a change or none of it, killed anywhere, whatever command fails."""

import json
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
import kdo_txn_doc  # noqa: E402
import kdo_txn_engine  # noqa: E402
import kdo_txn_kit  # noqa: E402
import kdo_txn_redhat as redhat  # noqa: E402
from redhat_host import (  # noqa: E402
    CONF,
    ENTRY,
    GRUB_DEFAULTS,
    ID,
    IMAGE,
    KDUMP_FILES,
    REL,
    STATUS,
    SYSCONFIG,
    UNIT_LINK,
    RedHatHost,
    RedHatTools,
    change,
    fresh,
)
from test_txn_fake import LOADED, NOTIFIERS, STATE, sha  # noqa: E402
from test_txn_kill import content, hidden, in_child, states  # noqa: E402


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch):
    """A killed process loses nothing that it wrote, so the calls count and the disk need not turn."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(params=[True, False], ids=["installed", "bare"])
def host(request, tmp_path):
    host = RedHatHost(tmp_path / "host", installed=request.param)
    host.installed = request.param
    return host


@pytest.fixture
def ready(tmp_path):
    return RedHatHost(tmp_path / "host")


def apply(host, document, tools=None, **more):
    return kdo_txn.run(document, root=host.root, runner=tools or RedHatTools(host), **more)


def test_everything_is_done(host):
    result = apply(host, change(host, host.installed))
    assert result["error"] is None and result["state"] == "committed", result
    assert "nfs 10.0.0.1:/srv" in host.get(CONF) and "auto_reset_crashkernel no" in host.get(CONF)
    assert 'APPEND="irqpoll nr_cpus=1 reset_devices panic=10"' in host.get(SYSCONFIG)
    assert host.get(ENTRY).count("crashkernel=") == 1 and "crashkernel=512M" in host.get(ENTRY)
    assert host.get(IMAGE) == "image of " + sha(host.get(CONF)) and host.here(UNIT_LINK)
    assert host.get(LOADED).strip() == "1" and host.get("/loaded-config") == host.configuration()
    assert host.get(NOTIFIERS).strip() == "Y" and not host.here(STATUS)
    assert host.get(redhat.LOAD_NOTE).strip() == sha(host.get(SYSCONFIG))
    engine = set(os.listdir(host.real(STATE + "/engine")))
    assert "kdo_txn_redhat.py" in engine


def test_again_changes_nothing(host):
    document = change(host, host.installed)
    apply(host, document)
    before, tools = host.picture(), RedHatTools(host)
    result = apply(host, document, tools)
    assert (result["state"], result["changed"], result["error"]) == ("committed", False, None)
    assert before == host.picture() and {name for name, _ in tools.calls} <= {"unit-state", "rpm-list"}


COMMANDS = ("dnf-simulate", "dnf-install", "kdump-rebuild", "kdump-restart", "unit-enable", "unit-state")


@pytest.mark.parametrize("how", ["at once", "late"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_fails_undoes_everything(host, name, how):
    before, once = host.picture(), []

    class Once(RedHatTools):
        def __call__(self, command, argv, timeout):
            self.fail = {name: how} if command == name and not once else {}
            once.extend([1] if command == name else [])
            return RedHatTools.__call__(self, command, argv, timeout)

    result = apply(host, change(host, host.installed), Once(host))
    if result["state"] == "committed":  # a command that this host does not need, or whose failure says nothing
        assert name in ("dnf-simulate", "dnf-install", "unit-enable", "unit-state")
    else:
        assert result["state"] in ("undone", "refused") and host.picture() == before, result


def test_rollback_leaves_the_tree_as_it_was(host):
    before = host.picture()
    apply(host, change(host, host.installed))
    result = kdo_txn.rollback(host.root, runner=RedHatTools(host))
    assert result["state"] == "rolled-back" and result["error"] is None, result
    assert host.picture() == before


def every_point(function, source, tmp_path, judge, arm=None):
    """Kill at every durable call, recover, and let `judge` look; twice, because recovering again must find nothing."""
    for stop in range(1, 5000):
        host = fresh(source, tmp_path / "work")
        through = in_child(lambda point, host=host: function(host, point), stop, arm)
        for expected in (None, "nothing"):
            found = kdo_txn.recover(host.root, runner=RedHatTools(host), wait=0)
            assert found["error"] is None and expected in (None, found["state"]), (stop, found)
            judge(host, stop)
        if through:
            return stop
    raise AssertionError("it never came through")


def test_killed_while_it_applies(host, tmp_path):
    document, before = change(host, host.installed), host.picture()
    reference = fresh(host.root, tmp_path / "reference")
    assert apply(reference, document)["state"] == "committed"
    after, seen = content(reference.picture()), set()

    def judge(found, stop):
        assert hidden(found) == []
        done = states(found) == ["committed"]
        assert (content(found.picture()) == after) if done else (found.picture() == before), stop
        seen.add(done)

    def function(found, point):
        apply(found, document, RedHatTools(found, on=point))

    # Up to the first step nothing depends on the family: test_txn_kill has every point of it.
    points = every_point(function, host.root, tmp_path, judge, (kdo_txn_engine.Engine, "_steps"))
    assert points > 60 and seen == {True, False}


def test_killed_while_it_undoes(host, tmp_path):
    document, before = change(host, host.installed), host.picture()
    document["expect"].append({"kind": "value", "path": NOTIFIERS, "value": "N"})

    def judge(found, stop):
        assert hidden(found) == [] and found.picture() == before and "committed" not in states(found), stop

    def function(found, point):
        apply(found, document, RedHatTools(found, on=point))

    every_point(function, host.root, tmp_path, judge, (kdo_txn_engine.Engine, "undo"))


def test_killed_while_it_rolls_back(host, tmp_path):
    document, before = change(host, host.installed), host.picture()
    assert apply(host, document)["state"] == "committed"
    after, seen = content(host.picture()), set()

    def judge(found, stop):
        state = states(found)
        seen.update(state)
        now = found.picture()
        assert hidden(found) == [] and (content(now) == after if state == ["committed"] else now == before), stop

    def function(found, point):
        kdo_txn.rollback(found.root, runner=RedHatTools(found, on=point))

    every_point(function, host.root, tmp_path, judge, (kdo_txn_engine.Engine, "_roll_back"))
    assert seen >= {"rolled-back"}


def test_a_target_that_mkdumprd_does_not_take_leaves_the_old_kernel_loaded(ready):
    before = ready.picture()
    result = apply(ready, change(ready), RedHatTools(ready, {"conf": "bad"}))
    assert result["state"] == "undone" and "mkdumprd" in json.dumps(result["steps"])
    assert ready.picture() == before and ready.get("/loaded-config") == ready.configuration()


def test_what_kdumpctl_would_refuse_is_seen_before_the_old_kernel_is_unloaded(ready):
    ready.put(CONF, KDUMP_FILES[CONF] + "blacklist kvm\n")
    before, tools = ready.picture(), RedHatTools(ready)
    result = apply(ready, change(ready), tools)
    assert result["state"] == "undone" and "blacklist" in result["error"]["why"] and ready.picture() == before
    assert [name for name, _ in tools.calls if name.startswith("kdump")] == []


def refused(host, **more):
    before = host.picture()
    result = apply(host, change(host, more.pop("installed", True), **more))
    assert result["state"] == "refused" and host.picture() == before, result
    return result["error"]["what"] + ": " + result["error"]["why"]


def test_only_the_running_kernel_gets_an_image(ready):
    ready.put("/boot/vmlinuz-6.0", "kernel")
    steps = [{"op": "action", "name": "kdump-build-image", "release": "6.0"}]
    assert "builds for the kernel that runs" in refused(ready, steps=steps, expect=[])
    ready.put(SYSCONFIG, KDUMP_FILES[SYSCONFIG].replace('KERNELVER=""', 'KERNELVER="6.0"'))
    assert redhat._release(kdo_txn_engine.Tree(ready.root)) == "6.0"


def test_the_image_is_kept_as_a_copy(ready):
    """dracut writes over it: a hard link would be changed with it."""
    assert not redhat.RedHat().keeps_inode(IMAGE)
    apply(ready, change(ready))
    assert kdo_txn.rollback(ready.root, runner=RedHatTools(ready))["state"] == "rolled-back"
    assert ready.get(IMAGE) == "old image"


def test_an_image_that_the_service_built_anew_since_does_not_outlive_its_configuration(ready):
    """It would be newer than the kdump.conf that comes back, so nothing would build it again."""
    apply(ready, change(ready))
    ready.put(IMAGE, "built at the next boot for the new target", 0o600, age=10**7)
    result = kdo_txn.rollback(ready.root, runner=RedHatTools(ready))
    assert result["state"] == "rolled-back" and ready.get(IMAGE) == "old image"
    assert ready.get("/loaded-config") == ready.configuration()


def test_fadumps_image_is_in_reach_when_kdumpctl_would_put_it_back(ready):
    kept = "/boot/.initramfs-%s.img.default" % REL
    found = []
    ready.put(kept, "x")
    redhat.RedHat().capture_reach(kdo_txn_engine.Tree(ready.root), {}, [REL], lambda kind, *paths: found.extend(paths))
    assert {kept, kept + ".checksum", "/boot/initramfs-%s.img" % REL, IMAGE, STATUS} <= set(found)
    assert "/etc/vconsole.conf" not in found


# dnf's table.

DNF5 = """\
Updating and loading repositories:
Repositories loaded.
Package                       Arch   Version              Repository      Size
Installing:
 kdump-utils                  x86_64 1.0.43-3.fc41        fedora     219.9 KiB
Installing dependencies:
 dracut-network               x86_64 103-3.fc41           fedora     151.6 KiB
 kexec-tools                  x86_64 2.0.29-1.fc41        fedora     220.6 KiB

Transaction Summary:
 Installing:        3 packages

Total size of inbound packages is 1 MiB. Need to download 1 MiB.
Operation aborted by the user.
"""


def test_both_dnfs_tables_are_read():
    assert redhat.transaction(DNF5) == (["dracut-network", "kdump-utils", "kexec-tools"], [])
    assert redhat.transaction(RedHatTools.table) == (["dracut-network", "ethtool", "kexec-tools"], [])
    for said in ("", "Error: Unable to find a match: kexec-tools\n", "Nothing to do.\nComplete!\n"):
        with pytest.raises(ValueError, match="names no package"):
            redhat.transaction(said)


@pytest.mark.parametrize(
    "more",
    [
        "Upgrading:\n dracut  x86_64 057-55  baseos 1 k\n",
        "Removing:\n kdump-anaconda x86_64 1 @System 1 k\n",
        "Downgrading:\n dracut  x86_64 057-50  baseos 1 k\n",
        "Removing dependent packages:\n a x86_64 1 @System 1 k\n",
        "Something new:\n a x86_64 1 @System 1 k\n",
        "     replacing  a.x86_64 1\n",
    ],
)
def test_nothing_is_installed_when_something_else_would_change(tmp_path, more):
    host = RedHatHost(tmp_path, installed=False)
    before, tools = host.picture(), RedHatTools(host)
    tools.table = tools.table.replace("\nTransaction", more + "\nTransaction")
    result = apply(host, change(host, False), tools)
    assert result["state"] == "undone" and "would do more" in result["error"]["why"] and host.picture() == before
    assert not [name for name, _ in tools.calls if name == "dnf-install"]


def test_packages_that_others_need_by_now_stay(tmp_path):
    host = RedHatHost(tmp_path, installed=False)
    apply(host, change(host, False))
    result = kdo_txn.rollback(host.root, runner=RedHatTools(host, {"rpm-erase-test": "at once"}))
    assert result["state"] == "undo-incomplete" and "cannot be removed" in result["error"]["why"]
    assert kdo_txn.rollback(host.root, runner=RedHatTools(host))["error"] is None


# The document.


@pytest.mark.parametrize(
    "path,pair",
    [
        (CONF, ["core_collector", "sh -c x"]),
        (CONF, ["core_collector", "makedumpfile -l; reboot"]),
        (CONF, ["kdump_post", "/tmp/x"]),
        (CONF, ["extra_bins", "/tmp/x"]),
        (CONF, ["dracut_args", "--include /x /y"]),
        (CONF, ["ssh", "-oProxyCommand=x@y"]),
        (CONF, ["path", "/a b"]),
        (CONF, ["failure_action", "rm"]),
        (SYSCONFIG, ["KDUMP_COMMANDLINE_APPEND", "$(reboot)"]),
        (SYSCONFIG, ["KDUMP_COMMANDLINE_REMOVE", "a;b"]),
        (SYSCONFIG, ["KEXEC_ARGS", "-s"]),
        (SYSCONFIG, ["dracutbasedir", "/tmp"]),
    ],
)
def test_a_plan_cannot_bring_a_program(path, pair):
    op, member = ("settings", "settings") if path == CONF else ("assign", "assignments")
    step = {"op": op, "path": path, "before_sha256": "0" * 64, member: [pair]}
    with pytest.raises(kdo_txn_kit.Refused):
        kdo_txn_doc.validate({"format_version": "1.0", "id": ID, "family": "redhat", "steps": [step]})


def test_the_crashing_verb_is_nowhere():
    from kdo_txn_cmd import COMMANDS

    verbs = {v[1] for command in COMMANDS.values() for v in command.variants if v[0].endswith("kdumpctl")}
    assert verbs == {"rebuild", "restart", "stop"}  # "test" would crash the machine


def test_grub_defaults_are_put_back_too(host):
    before = host.get(GRUB_DEFAULTS)
    apply(host, change(host, host.installed))
    assert "crashkernel=512M" in host.get(GRUB_DEFAULTS)
    kdo_txn.rollback(host.root, runner=RedHatTools(host))
    assert host.get(GRUB_DEFAULTS) == before
