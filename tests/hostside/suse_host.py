# SPDX-License-Identifier: Apache-2.0
"""A SUSE host made of files: pbl, kdumptool, mkdumprd, load.sh and zypper as far as a change needs them."""

import os
import re
from typing import ClassVar

from family_host import PlainHost, RpmTools
from test_txn_fake import LOADED, NOTIFIERS, sha

REL = "6.12.0-160000.5-default"
CONFIG = "/etc/sysconfig/kdump"
DEFAULTS = "/etc/default/grub"
GRUB2 = "/boot/grub2/grub.cfg"
SYSCTL = "/etc/sysctl.d/60-kdump-orchestrator.conf"
STOCK = 'KDUMP_CRASHKERNEL="auto"\nKDUMP_CPUS=32\nKDUMP_COMMANDLINE_APPEND=""\nKDUMP_SAVEDIR="/var/crash"\n'
WANTED = "crashkernel=512M"
_KDUMP = (
    "/usr/sbin/kdumptool", "/usr/sbin/mkdumprd", "/usr/lib/kdump/load.sh", "/usr/lib/kdump/unload.sh",
)  # fmt: skip
LINKS = tuple(
    "/etc/systemd/system/multi-user.target.wants/" + unit
    for unit in ("kdump.service", "kdump-early.service", "kdump-notify.service", "kdump-commandline.service")
)
_LINE = re.compile(r'^GRUB_CMDLINE_LINUX(_DEFAULT)?="([^"]*)"', re.M)


class SuseHost(PlainHost):
    release = REL
    programs = (
        "/usr/sbin/pbl", "/usr/bin/zypper", "/usr/bin/rpm", "/usr/bin/systemctl", "/usr/sbin/kexec", "/usr/bin/dracut",
        "/usr/sbin/grub2-mkconfig",
    )  # fmt: skip

    def build(self, installed):
        self.base(f"BOOT_IMAGE=/boot/vmlinuz-{REL} root=/dev/vda2 quiet crashkernel=200M")
        self.put("/etc/sysconfig/bootloader", 'LOADER_TYPE="grub2-efi"\n')
        self.put(
            DEFAULTS, 'GRUB_DISTRIBUTOR=""\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="crashkernel=200M"\n'
        )
        self.put("/usr/lib/modules/" + REL + "/vmlinuz", "kernel")
        self.link("/boot/vmlinuz-" + REL, f"../usr/lib/modules/{REL}/vmlinuz")
        self.link("/boot/vmlinuz", "vmlinuz-" + REL)
        os.makedirs(self.real("/var/lib"), exist_ok=True)
        self.set_packages({"bash", "kexec-tools", "makedumpfile"})
        if installed:
            self.set_packages({"bash", "kexec-tools", "makedumpfile", "kdump"})
            for path in _KDUMP:
                self.put(path, "#!/bin/false\n", 0o755)
            self.put(CONFIG, STOCK, 0o600)
            self.put("/var/lib/kdump/initrd", "old image", 0o600)
            self.link("/var/lib/kdump/kernel", f"/usr/lib/modules/{REL}/vmlinuz")
            self.put("/var/lib/kdump/kernel-version", REL + "\n")
            self.put("/run/udev/rules.d/70-kdump.rules", "rules\n")
            os.makedirs(self.real("/var/crash"), exist_ok=True)
            for link in LINKS[:3]:
                self.link(link, "/usr/lib/systemd/system/" + os.path.basename(link))
            self.put(LOADED, "1\n")
            self.put("/proc/sys/kernel/panic_on_oops", "1\n")
            self.put("/loaded-config", sha(STOCK))
        self.mkconfig()

    def variables(self):
        found = {("second" if default else "first"): text for default, text in _LINE.findall(self.get(DEFAULTS))}
        return found.get("first", ""), found.get("second", "")

    def mkconfig(self):
        words = " ".join(part for part in self.variables() if part)
        text = f"### BEGIN /etc/grub.d/10_linux ###\nmenuentry 'SLES' {{\n\tlinux\t/boot/vmlinuz-{REL} root=/dev/vda2 {words}\n}}\n"
        text += "### END /etc/grub.d/10_linux ###\n"
        self.drop(GRUB2)
        self.put(GRUB2, text, 0o600, age=hash(text) % 1000)

    def menu(self):
        return self.get(GRUB2).split("root=/dev/vda2 ")[1].split("\n")[0].split()


class SuseTools(RpmTools):
    brought: ClassVar[dict] = {
        "kdump": {**dict.fromkeys(_KDUMP, ("#!/bin/false\n", 0o755)), CONFIG: (STOCK, 0o600)},
    }
    unit_links: ClassVar[dict] = {"kdump.service": LINKS}
    folders = ("/var/lib/kdump", "/usr/lib/kdump")

    # Boot arguments, as in pbl's library: one option replaces the first of its name, the others of that name go.

    def _edit(self, change):
        words = change(self.host.variables()[1].split(" "))
        text = re.sub(
            r'(?m)^GRUB_CMDLINE_LINUX_DEFAULT="[^"]*"',
            'GRUB_CMDLINE_LINUX_DEFAULT="%s"' % " ".join(w for w in words if w), self.host.get(DEFAULTS),
        )  # fmt: skip
        self.host.put(DEFAULTS, text, age=77)
        self.on()

    def pbl(self, argv):
        if self.fail.get("pbl") == "does nothing":
            return 0, "Option --add-option not available for u-boot."
        words = argv[1:]
        while words:
            option = words.pop(0)
            if option == "--config":
                self.host.put(GRUB2 + ".new", "half\n")
                self.on()
                self.host.mkconfig()
                self.host.drop(GRUB2 + ".new")
                continue
            value = words.pop(0)
            name = value.partition("=")[0]

            def change(now, option=option, value=value, name=name):
                out = []
                for word in now:
                    if word.partition("=")[0] != name:
                        out.append(word)
                    elif option == "--add-option" and value not in out:
                        out.append(value)
                return out + ([value] if option == "--add-option" and value not in out else [])

            self._edit(change)
        return 0, ""

    def kdump_commandline(self, argv):
        value = re.search(r'KDUMP_CRASHKERNEL="([^"]*)"', self.host.get(CONFIG)).group(1)
        value = "crashkernel=72M,low crashkernel=300M,high" if value == "auto" else value
        return self.pbl(["pbl", "--add-option", value, "--del-option", "fadump", "--config"])

    # The capture image.

    def mkdumprd(self, argv):
        if self.fail.get("mkdumprd") == "does nothing":
            return 0, "Cannot update initrd within a transactional update."
        host = self.host
        os.makedirs(host.real("/var/crash"), exist_ok=True)
        with open(host.real("/var/lib/kdump/initrd") if host.here("/var/lib/kdump") else self._folder(), "w") as stream:
            self.on()
            stream.write("new image of " + sha(host.get(CONFIG)))
        host.link("/var/lib/kdump/kernel", f"/usr/lib/modules/{REL}/vmlinuz")
        self.on()
        host.put("/var/lib/kdump/kernel-version", REL + "\n", age=5)
        return 0, "Regenerating kdump initrd ..."

    def _folder(self):
        os.makedirs(self.host.real("/var/lib/kdump"))
        return self.host.real("/var/lib/kdump/initrd")

    def load_sh(self, argv):
        host = self.host
        if "bad" in host.get(CONFIG):
            return 1, "kexec failed."
        host.put("/run/udev/rules.d/70-kdump.rules", "rules\n", age=3)
        self.on()
        host.put("/proc/sys/kernel/panic_on_oops", "1\n")
        self.load_now(sha(host.get(CONFIG)))
        return 0, ""

    def unload_sh(self, argv):
        self.host.drop("/run/udev/rules.d/70-kdump.rules")
        self.on()
        self.unload_now()

    kexec_unload = unload_sh

    # Packages.

    def zypper_simulate(self, argv):
        more = (
            '<to-upgrade><solvable type="package" name="glibc"/></to-upgrade>'
            if self.fail.get("zypper") == "more"
            else ""
        )
        return 0, (
            '<?xml version="1.0"?>\n<stream>\n<install-summary download-size="1" packages-to-change="1">'
            '<to-install><solvable type="package" name="kdump" edition="2.1.5" arch="x86_64"/></to-install>'
            + more + "</install-summary>\n</stream>\n"
        )  # fmt: skip

    def zypper_install(self, argv):
        self.bring(["kdump"])
        return (102 if self.fail.get("zypper") == "reboot advised" else 0), ""

    def rpm_erase(self, argv):
        self.pbl(["pbl", "--del-option", "crashkernel", "--config"])  # kdumptool commandline -D
        super().rpm_erase(argv)

    def __call__(self, name, argv, timeout):
        return super().__call__(name.replace(".", "_"), argv, timeout)


def change(host, installed=True, **more):
    """A change with every kind of step of the family."""
    steps = [] if installed else [{"op": "package-install", "names": ["kdump"]}]
    steps += [
        {"op": "assign", "path": CONFIG,
         "assignments": [["KDUMP_CRASHKERNEL", WANTED], ["KDUMP_CPUS", "1"], ["KDUMP_COMMANDLINE_APPEND", "mce=off panic=10"]],
         "before_sha256": sha(host.get(CONFIG)) if installed else "from-package", "after_sha256": None},
        {"op": "action", "name": "kdump-commandline"},
        {"op": "action", "name": "pbl-arguments", "ensure": ["crash_kexec_post_notifiers"], "remove": ["fadump"]},
        {"op": "action", "name": "kdump-build-image", "release": REL},
        {"op": "service-enable", "unit": "kdump.service"},
        {"op": "action", "name": "kdump-reload"},
        {"op": "knob", "path": NOTIFIERS, "value": "Y", "before": "N"},
    ]  # fmt: skip
    expect = [
        {"kind": "words", "path": GRUB2, "line_prefix": "linux", "once": {"crashkernel=": WANTED},
         "present": ["crash_kexec_post_notifiers"], "absent": ["fadump", "fadump="]},
        {"kind": "value", "path": LOADED, "value": "1"},
    ]  # fmt: skip
    document = {
        "format_version": "1.0",
        "id": "cd" * 32,
        "title": "all kinds",
        "steps": steps,
        "expect": expect,
        "family": "suse",
    }
    document.update(more)
    return document
