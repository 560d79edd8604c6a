# SPDX-License-Identifier: Apache-2.0
"""A host made of files: enough of a Red Hat family host's tools, on a tree, to apply a change to it. Not a test of its own.

As the real ones: rpm keeps an edited configuration file as .rpmsave, the package's script sets crashkernel= in the loader
entries, dracut writes the image over the old one in the same inode, kdumpctl restart builds the image when it is older
than kdump.conf.
"""

import os
import shutil

from test_txn_fake import LOADED, NOTIFIERS, SYSCTL, Host, sha

REL = "5.14.0-427.13.1.el9_4.x86_64"
ID = "cd" * 32
CONF, SYSCONFIG = "/etc/kdump.conf", "/etc/sysconfig/kdump"
IMAGE = "/boot/initramfs-%skdump.img" % REL
STATUS = "/var/lib/kdump/vmcore-creation.status"
ENTRY = "/boot/loader/entries/0123456789abcdef0123456789abcdef-%s.conf" % REL
GRUB_DEFAULTS = "/etc/default/grub"
UNIT_LINK = "/etc/systemd/system/multi-user.target.wants/kdump.service"
PROGRAMS = ["/usr/bin/rpm", "/usr/bin/dnf", "/usr/bin/systemctl", "/usr/bin/dracut", "/usr/sbin/kexec"]
KDUMP_FILES = {
    CONF: "# a comment\n#nfs my.server.com:/export/tmp\nauto_reset_crashkernel yes\npath /var/crash\n"
    "core_collector makedumpfile -l --message-level 7 -d 31\n#failure_action shell\n",
    SYSCONFIG: 'KDUMP_KERNELVER=""\nKDUMP_COMMANDLINE=""\nKDUMP_COMMANDLINE_REMOVE="hugepages quiet"\n'
    'KDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1 reset_devices"\nKEXEC_ARGS="-s"\n',
    "/usr/bin/kdumpctl": "#!/bin/false\n",
    "/usr/lib/systemd/system/kdump.service": "[Unit]\n",
}
BROUGHT = ("kexec-tools", "dracut-network", "ethtool")


class RedHatHost(Host):
    """``installed``: kexec-tools is there, and a capture kernel is loaded."""

    def build(self, installed):
        for path in PROGRAMS:
            self.put(path, "#!/bin/false\n", 0o755)
        self.put("/boot/vmlinuz-" + REL, "kernel")
        self.put("/boot/initramfs-%s.img" % REL, "initrd" * 100)
        self.put(ENTRY, "title Linux\nversion %s\nlinux /vmlinuz-%s\noptions root=/dev/vda1 ro quiet\n" % (REL, REL))
        self.put(GRUB_DEFAULTS, 'GRUB_CMDLINE_LINUX="quiet"\nGRUB_ENABLE_BLSCFG=true\n')
        self.put("/etc/vconsole.conf", "KEYMAP=us\n")
        self.put("/proc/cmdline", "root=/dev/vda1 ro quiet crashkernel=256M\n")
        self.put("/proc/sys/kernel/osrelease", REL + "\n")
        self.put("/proc/sys/kernel/random/boot_id", "boot-one\n")
        self.put("/proc/sys/kernel/kexec_load_disabled", "0\n")
        self.put("/proc/sys/kernel/panic", "0\n")
        self.put("/sys/kernel/kexec_crash_size", "268435456\n")
        self.put(LOADED, "0\n")
        self.put(NOTIFIERS, "N\n")
        for folder in (
            "/etc/systemd/system",
            "/etc/sysctl.d",
            "/etc/sysconfig",
            "/var/lib/dpkg",
            "/usr/lib/systemd/system",
        ):
            os.makedirs(self.real(folder), exist_ok=True)
        self.set_packages({"bash": "installed", "gpg-pubkey": "installed"})
        if installed:
            for path, text in KDUMP_FILES.items():
                self.put(path, text, 0o755 if "bin" in path else 0o600 if path == SYSCONFIG else 0o644)
            self.set_packages(dict.fromkeys((*self.packages(), *BROUGHT), "installed"))
            self.link(UNIT_LINK, "/usr/lib/systemd/system/kdump.service")
            self.put(IMAGE, "old image", 0o600, age=2000)
            self.put(STATUS, "success kdump_test_id=1\n")
            self.put(LOADED, "1\n")
            self.note_load()

    def configuration(self):
        return sha(self.get(CONF) + self.get(SYSCONFIG) + self.get(IMAGE))

    def note_load(self):
        self.put("/loaded-config", self.configuration())


class RedHatTools:
    """Behaves like the programs in the table. ``fail``: {name: how}; ``on``: called before and amid each of them."""

    table = (
        "Dependencies resolved.\n====\n Package  Architecture  Version  Repository  Size\n====\nInstalling:\n"
        " kexec-tools       x86_64  2.0.27-8.el9     baseos  480 k\nInstalling dependencies:\n"
        " dracut-network    x86_64  057-53.git20240104.el9\n"
        "                                            baseos   79 k\n"
        " ethtool           x86_64  2:6.2-1.el9      baseos  226 k\n"
        "\nTransaction Summary\n====\nInstall  3 Packages\n\nOperation aborted.\n"
    )

    def __init__(self, host, fail=None, on=None):
        self.host, self.fail, self.on = host, dict(fail or {}), on or (lambda: None)
        self.calls = []

    def __call__(self, name, argv, timeout):
        self.calls.append((name, argv))
        self.on()
        how = self.fail.get(name)
        if how == "at once":
            return 1, "failed at once"
        status, output = getattr(self, name.replace("-", "_"))(argv) or (0, "")
        self.on()
        if how == "late":
            return 1, "failed late"
        if isinstance(how, BaseException):
            raise how
        return status, output

    def rpm_list(self, argv):
        return 0, "".join(name + "\n" for name in sorted(self.host.packages()))

    def dnf_simulate(self, argv):
        assert argv[-1] == "kexec-tools" and "--assumeno" in argv
        return 1, self.table

    def dnf_install(self, argv):
        host = self.host
        for path, text in KDUMP_FILES.items():
            host.put(path, text, 0o755 if "bin" in path else 0o644)
            self.on()
        for name in BROUGHT:
            host.set_packages({**host.packages(), name: "installed"})
            self.on()
        host.set_packages({**host.packages(), "gpg-pubkey": "installed"})
        os.makedirs(host.real("/var/lib/kdump"), exist_ok=True)
        host.link(UNIT_LINK, "/usr/lib/systemd/system/kdump.service")
        self.on()
        host.put(ENTRY, host.get(ENTRY).replace("quiet\n", "quiet crashkernel=1G-4G:192M\n"), age=3)

    dnf_finish = dnf_install

    def rpm_erase_test(self, argv):
        return 0, ""

    def rpm_erase(self, argv):
        host, names = self.host, argv[argv.index("-e") + 1 :]
        assert set(names) <= set(BROUGHT)
        if "kexec-tools" in names:
            host.drop(UNIT_LINK)
            for path, text in KDUMP_FILES.items():
                if path in (CONF, SYSCONFIG) and host.here(path) and host.get(path) != text:
                    host.put(path + ".rpmsave", host.get(path))
                host.drop(path)
                self.on()
            for folder in ("/var/lib/kdump", "/etc/systemd/system/multi-user.target.wants"):
                if os.path.isdir(host.real(folder)) and not os.listdir(host.real(folder)):
                    os.rmdir(host.real(folder))
        host.set_packages({name: "installed" for name in host.packages() if name not in names})

    def kdump_rebuild(self, argv):
        host = self.host
        if self.fail.get("conf") == "bad" and "10.0.0.1" in host.get(CONF):
            return 1, "kdump: mkdumprd failed"
        os.makedirs(host.real("/var/lib/kdump"), exist_ok=True)
        host.drop("/var/lib/kdump/vmcore-creation.status")
        self.on()
        # In the same inode: a hard link to the old image would see the new one.
        handle = os.open(host.real(IMAGE), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self.on()
        os.write(handle, b"image of " + sha(host.get(CONF)).encode())
        os.close(handle)
        os.utime(host.real(IMAGE), ns=(10**18 + 9 * 10**12, 10**18 + 9 * 10**12))
        return None

    def kdump_stop(self, argv):
        self.host.put(LOADED, "0\n")
        self.host.drop("/loaded-config")

    kexec_unload = kdump_stop

    def kdump_restart(self, argv):
        host = self.host
        self.kdump_stop(argv)
        self.on()
        image = os.stat(host.real(IMAGE)) if host.here(IMAGE) else None
        if image is None or os.stat(host.real(CONF)).st_mtime > image.st_mtime:
            found = self.kdump_rebuild(argv)
            if found:
                return found
            self.on()
        host.put(LOADED, "1\n")
        host.note_load()
        return None

    def unit_state(self, argv):
        return (0, "enabled\n") if self.host.here(UNIT_LINK) else (1, "disabled\n")

    def unit_enable(self, argv):
        self.host.link(UNIT_LINK, "/usr/lib/systemd/system/kdump.service")

    def unit_disable(self, argv):
        self.host.drop(UNIT_LINK)

    def units_reload(self, argv):
        pass


def change(host, installed=True, **more):
    """A change with every kind of step."""

    def before(path):
        return sha(host.get(path)) if host.here(path) else "from-package"

    argument = {"ensure": ["crashkernel=512M"], "remove": ["nokdump"]}
    steps = [] if installed else [{"op": "package-install", "names": ["kexec-tools"]}]
    steps += [
        {"op": "settings", "path": CONF, "before_sha256": before(CONF), "after_sha256": None,
         "settings": [["nfs", "10.0.0.1:/srv"], ["path", "/dumps"], ["auto_reset_crashkernel", "no"]]},
        {"op": "assign", "path": SYSCONFIG, "before_sha256": before(SYSCONFIG), "after_sha256": None,
         "assignments": [["KDUMP_COMMANDLINE_APPEND", "irqpoll nr_cpus=1 reset_devices panic=10"]]},
        {"op": "write", "path": SYSCTL, "text": "kernel.panic = 10\n", "before_sha256": None},
        {"op": "arguments", "path": ENTRY, "before_sha256": before(ENTRY), "after_sha256": None, **argument},
        {"op": "arguments", "path": GRUB_DEFAULTS, "before_sha256": before(GRUB_DEFAULTS), "after_sha256": None, **argument},
        {"op": "action", "name": "loader-settle"},
        {"op": "action", "name": "kdump-build-image", "release": REL},
        {"op": "service-enable", "unit": "kdump.service"},
        {"op": "knob", "path": NOTIFIERS, "value": "Y", "before": "N"},
        {"op": "action", "name": "kdump-reload"},
    ]  # fmt: skip
    expect = [
        {"kind": "value", "path": LOADED, "value": "1"},
        {"kind": "value", "path": NOTIFIERS, "value": "1"},
        {"kind": "sha256", "path": SYSCTL, "value": sha("kernel.panic = 10\n")},
    ]
    document = {
        "format_version": "1.0",
        "id": ID,
        "title": "all kinds",
        "family": "redhat",
        "steps": steps,
        "expect": expect,
    }
    document.update(more)
    return document


def fresh(source, target):
    """A copy of a host's tree, as a host."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return RedHatHost(target, make=False)
