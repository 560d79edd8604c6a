# SPDX-License-Identifier: Apache-2.0
"""An Azure Linux 3 host made of files: grub2-mkconfig and kdumpctl as far as a change needs them."""

from typing import ClassVar

from family_host import PlainHost, RpmTools
from test_txn_fake import LOADED, NOTIFIERS, SNIPPET, sha

REL = "6.6.96.2-2.azl3"
CONF, SYSCONFIG = "/etc/kdump.conf", "/etc/sysconfig/kdump"
GRUB2 = "/boot/grub2/grub.cfg"
INITRD = "/boot/initrd.img-" + REL
IMAGE = f"/boot/initramfs-{REL}kdump.img"
LINK = "/etc/systemd/system/multi-user.target.wants/kdump.service"
SNIPPET_TEXT = 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=512M"\n'


class AzureHost(PlainHost):
    release = REL
    programs = (
        "/usr/sbin/grub2-mkconfig", "/usr/bin/kdumpctl", "/usr/bin/rpm", "/usr/bin/systemctl", "/usr/sbin/kexec",
        "/usr/bin/dracut",
    )  # fmt: skip

    def build(self, installed=True):
        self.base(f"BOOT_IMAGE=/boot/vmlinuz-{REL} root=/dev/sda2 crashkernel=256M")
        self.set_packages({"bash", "kexec-tools"})
        self.put("/etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet"\n')
        self.put(
            "/etc/default/grub.d/51_kexec_tools.cfg",
            'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX crashkernel=256M"\n',
            0o755,
        )
        self.put(
            CONF,
            "path /var/crash\ncore_collector makedumpfile -l --message-level 1 -d 31\ndisable_crash_dump_reboot 0\n",
        )
        self.put(SYSCONFIG, 'KDUMP_KERNELVER=""\nKDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1"\n')
        self.put("/boot/vmlinuz-" + REL, "kernel")
        self.put(INITRD, "the host's own", 0o600)
        self.put(IMAGE, "old image", 0o600)
        self.put("/etc/vconsole.conf", "KEYMAP=us\n")
        self.put(LOADED, "1\n")
        self.put("/proc/sys/kernel/panic_on_oops", "1\n")
        self.put("/loaded-config", sha(self.get(SYSCONFIG)))
        self.mkconfig()

    def mkconfig(self):
        words = "crashkernel=512M quiet" if self.here(SNIPPET) else "quiet crashkernel=256M"
        text = f"### BEGIN /etc/grub.d/10_linux ###\nmenuentry 'Azure Linux' {{\n\tlinux\t/boot/vmlinuz-{REL} root=/dev/sda2 {words}\n}}\n"
        self.drop(GRUB2)
        self.put(GRUB2, text + "### END /etc/grub.d/10_linux ###\n", 0o600, age=hash(text) % 1000)


class AzureTools(RpmTools):
    """``fail``: {"initrd": "overwritten"} is what microsoft/azurelinux#6478 was about."""

    unit_links: ClassVar[dict] = {"kdump.service": (LINK,)}

    def grub2_regenerate(self, argv):
        self.host.put(GRUB2 + ".new", "half\n")
        self.on()
        self.host.mkconfig()
        self.host.drop(GRUB2 + ".new")

    def kdump_rebuild(self, argv):
        path = INITRD if self.fail.get("initrd") else IMAGE
        with open(self.host.real(path), "w") as stream:  # dracut writes in place
            self.on()
            stream.write("new image of " + self.host.get(CONF))
        return 0, "kdump: Rebuilding"

    def kdump_restart(self, argv):
        self.load_now(sha(self.host.get(SYSCONFIG)))
        return 0, "kdump: Starting kdump: [OK]"

    def kdump_stop(self, argv):
        self.unload_now()

    kexec_unload = kdump_stop


def change(host, **more):
    """A change with every kind of step."""
    steps = [
        {"op": "settings", "path": CONF, "settings": [["path", "/srv/crash"]], "before_sha256": sha(host.get(CONF)),
         "after_sha256": None},
        {"op": "assign", "path": SYSCONFIG, "assignments": [["KDUMP_COMMANDLINE_APPEND", "irqpoll nr_cpus=1 reset_devices"]],
         "before_sha256": sha(host.get(SYSCONFIG)), "after_sha256": None},
        {"op": "write", "path": SNIPPET, "text": SNIPPET_TEXT, "mode": "0644", "before_sha256": None},
        {"op": "action", "name": "grub2-regenerate"},
        {"op": "action", "name": "kdump-build-image", "release": REL},
        {"op": "service-enable", "unit": "kdump.service"},
        {"op": "action", "name": "kdump-reload"},
        {"op": "knob", "path": NOTIFIERS, "value": "Y", "before": "N"},
    ]  # fmt: skip
    expect = [
        {"kind": "words", "path": GRUB2, "line_prefix": "linux", "once": {"crashkernel=": "crashkernel=512M"}},
        {"kind": "value", "path": LOADED, "value": "1"},
    ]
    document = {
        "format_version": "1.0",
        "id": "ef" * 32,
        "title": "all",
        "steps": steps,
        "expect": expect,
        "family": "azurelinux",
    }
    document.update(more)
    return document
