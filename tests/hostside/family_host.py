# SPDX-License-Identifier: Apache-2.0
"""What the simulated hosts of the other families share: plain trees, rpm, and killing at every durable call."""

import os
import shutil
from typing import ClassVar

import kdo_txn
from test_txn_fake import LOADED, NOTIFIERS, Host, Tools
from test_txn_kill import content, hidden, in_child


class PlainHost(Host):
    """A tree with a kernel's values in it; each family adds its own files. ``release`` runs."""

    release = ""
    programs = ()
    kernel_files = ("/rpm", "/loaded-config")  # state that is asked for, not put back as a file

    def base(self, cmdline):
        for path in self.programs:
            self.put(path, "#!/bin/false\n", 0o755)
        self.put("/proc/cmdline", cmdline + "\n")
        self.put("/proc/sys/kernel/osrelease", self.release + "\n")
        self.put("/proc/sys/kernel/random/boot_id", "boot-one\n")
        self.put("/proc/sys/kernel/kexec_load_disabled", "0\n")
        self.put("/proc/sys/kernel/panic_on_oops", "0\n")
        self.put("/sys/kernel/kexec_crash_size", "268435456\n")
        self.put(LOADED, "0\n")
        self.put(NOTIFIERS, "N\n")
        for folder in ("/etc/systemd/system", "/etc/sysctl.d", "/run/udev", "/var/lib"):
            os.makedirs(self.real(folder), exist_ok=True)

    def set_packages(self, packages):
        self.put("/rpm", "".join(name + "\n" for name in sorted(packages)))

    def packages(self):
        return self.get("/rpm").split()

    def picture(self):
        found = super().picture()
        for path in self.kernel_files:
            if path in found and found[path][0] == "file":
                found[path] = (*found[path][:3], None)
        return found


class RpmTools(Tools):
    """rpm, units and kexec. ``brought``: package → {path: (text, mode)} that installing it makes."""

    brought: ClassVar[dict] = {}
    unit_links: ClassVar[dict] = {}
    folders = ()  # that go with a package when they are empty

    def rpm_list(self, argv):
        return 0, "".join(name + "\n" for name in self.host.packages())

    def rpm_erase_test(self, argv):
        return 0, ""

    def rpm_erase(self, argv):
        for name in argv[2:]:
            for path in self.brought.get(name, {}):
                self.host.drop(path)
                self.on()
        for folder in self.folders:
            if self.host.here(folder) and not os.listdir(self.host.real(folder)):
                os.rmdir(self.host.real(folder))
        self.host.set_packages([name for name in self.host.packages() if name not in argv[2:]])

    def bring(self, names):
        for name in names:
            for path, (text, mode) in self.brought.get(name, {}).items():
                self.host.put(path, text, mode)
                self.on()
        self.host.set_packages(set(self.host.packages()) | set(names))

    def unit_state(self, argv):
        links = self.unit_links[argv[-1]]
        if self.host.here("/etc/systemd/system/" + argv[-1]):
            return (1, "masked\n")
        return (0, "enabled\n") if self.host.here(links[0]) else (1, "disabled\n")

    def unit_enable(self, argv):
        for link in self.unit_links[argv[-1]]:
            self.host.link(link, "/usr/lib/systemd/system/" + os.path.basename(link))
            self.on()

    def unit_disable(self, argv):
        for link in self.unit_links[argv[-1]]:
            self.host.drop(link)
            self.on()

    def load_now(self, what):
        self.host.put(LOADED, "1\n")
        self.host.put("/loaded-config", what)

    def unload_now(self):
        self.host.put(LOADED, "0\n")
        self.host.drop("/loaded-config")


def fresh(source, target):
    """A copy of a host, of the same kind."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source.root, target, symlinks=True)
    return type(source)(target, make=False)


def states(host):
    return [row["state"] for row in kdo_txn.status(host.root)["transactions"]]


def differences(before, now):
    """Paths that are not as they were."""
    return {path: (before.get(path), now.get(path)) for path in before | now if before.get(path) != now.get(path)}


def every_point(source, function, tools, tmp_path, judge, arm=None):
    """Kill ``function(host, point)`` at every durable call, recover with ``tools(host)``, and let ``judge`` look."""
    for stop in range(1, 5000):
        host = fresh(source, tmp_path / "work")
        through = in_child(lambda point, host=host: function(host, point), stop, arm)
        left = kdo_txn.recover(host.root, runner=tools(host), wait=0)
        assert left["error"] is None, (stop, left)
        judge(host, stop)
        if through:
            return stop
    raise AssertionError("it never came through")


def apply_everywhere(source, document, tools, tmp_path):
    """Killed anywhere while it is applied, a host is as before or as after, and the journal says which."""
    before = source.picture()
    reference = fresh(source, tmp_path / "reference")
    result = kdo_txn.run(document, root=reference.root, runner=tools(reference))
    assert result["state"] == "committed", result
    after, seen = content(reference.picture()), set()

    def judge(host, stop):
        assert hidden(host) == []
        if states(host) == ["committed"]:
            assert content(host.picture()) == after, stop
            seen.add("after")
        else:
            assert differences(before, host.picture()) == {}, stop
            seen.add("before")

    def function(host, point):
        kdo_txn.run(document, root=host.root, runner=tools(host, on=point))

    points = every_point(source, function, tools, tmp_path, judge)
    assert seen == {"before", "after"}
    return points


def rollback_everywhere(source, document, tools, tmp_path):
    """Killed anywhere while it is rolled back, a host ends as before the change."""
    before = source.picture()
    done = fresh(source, tmp_path / "done")
    assert kdo_txn.run(document, root=done.root, runner=tools(done))["state"] == "committed"
    after = content(done.picture())

    def judge(host, stop):
        assert hidden(host) == []
        if states(host) == ["committed"]:
            assert content(host.picture()) == after, stop
        else:
            assert states(host) == ["rolled-back"], stop
            assert differences(before, host.picture()) == {}, stop

    def function(host, point):
        kdo_txn.rollback(host.root, runner=tools(host, on=point))

    return every_point(done, function, tools, tmp_path, judge)
