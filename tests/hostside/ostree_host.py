# SPDX-License-Identifier: Apache-2.0
"""An rpm-ostree host made of files: deployments are lines of /deployments, the first boots next."""

import json
from typing import ClassVar

from family_host import PlainHost, RpmTools
from test_txn_fake import LOADED, sha

REL = "6.11.8-300.fc41.x86_64"
CONF, SYSCONFIG = "/etc/kdump.conf", "/etc/sysconfig/kdump"
IMAGE = f"/var/lib/kdump/initramfs-{REL}kdump.img"
LINK = "/etc/systemd/system/multi-user.target.wants/kdump.service"
OLD = "root=UUID=x rw quiet crashkernel=64M crashkernel=32M foo"


class OstreeHost(PlainHost):
    release = REL
    programs = (
        "/usr/bin/rpm-ostree",
        "/usr/bin/kdumpctl",
        "/usr/bin/rpm",
        "/usr/bin/systemctl",
        "/usr/sbin/kexec",
        "/usr/bin/dracut",
    )

    def build(self, installed=True):
        self.base("BOOT_IMAGE=/boot/ostree/x/vmlinuz " + OLD)
        self.kernel_files = (*PlainHost.kernel_files, "/deployments")
        self.set_packages({"bash", "kdump-utils"})
        self.put("/run/ostree-booted", "")
        self.put(CONF, "path /var/crash\ncore_collector makedumpfile -l --message-level 7 -d 31\n")
        self.put(SYSCONFIG, 'KDUMP_KERNELVER=""\nKDUMP_COMMANDLINE_APPEND="irqpoll nr_cpus=1"\n')
        self.put(f"/lib/modules/{REL}/vmlinuz", "kernel")
        self.put(IMAGE, "old image", 0o600)
        self.put("/etc/vconsole.conf", "KEYMAP=us\n")
        self.deploy([["booted", OLD]])

    def deployments(self):
        return json.loads(self.get("/deployments"))

    def deploy(self, rows):
        self.put("/deployments", json.dumps(rows))

    def picture(self):
        self.kernel_files = (*PlainHost.kernel_files, "/deployments")
        return super().picture()

    def next(self):
        return self.deployments()[0][1].split()


class OstreeTools(RpmTools):
    unit_links: ClassVar[dict] = {"kdump.service": (LINK,)}

    def rpm_ostree_kargs(self, argv):
        rows = self.host.deployments()
        if len(argv) == 2:
            return 0, rows[0][1] + "\n"
        words = rows[0][1].split()
        for word in argv[2:]:
            option, _, value = word.partition("=")
            if option == "--delete":
                if value not in words:
                    return 1, f"error: No karg '{value}' found"
                words.remove(value)
            else:
                words.append(value)
        if rows[0][0] != "booted":
            rows.pop(0)  # a pending one is replaced
        self.on()
        self.host.deploy([[f"pending-{sha(' '.join(words))[:6]}", " ".join(words)], *rows])
        self.on()
        return 0, 'Kernel arguments updated.\nRun "systemctl reboot" to start a reboot\n'

    def rpm_ostree_status(self, argv):
        rows = [{"id": name, "booted": name == "booted"} for name, _ in self.host.deployments()]
        return 0, json.dumps({"deployments": rows, "transaction": None})

    def rpm_ostree_cleanup(self, argv):
        self.host.deploy([row for row in self.host.deployments() if not row[0].startswith("pending")])
        self.on()

    def kdump_rebuild(self, argv):
        with open(self.host.real(IMAGE), "w") as stream:
            self.on()
            stream.write("new image of " + self.host.get(CONF))

    def kdump_restart(self, argv):
        self.load_now(sha(self.host.get(SYSCONFIG)))

    def kdump_stop(self, argv):
        self.unload_now()

    kexec_unload = kdump_stop


def change(host, **more):
    """A change with every kind of step."""
    steps = [
        {"op": "assign", "path": SYSCONFIG, "assignments": [["KDUMP_COMMANDLINE_APPEND", "irqpoll nr_cpus=1 reset_devices"]],
         "before_sha256": sha(host.get(SYSCONFIG)), "after_sha256": None},
        {"op": "action", "name": "rpm-ostree-kargs", "ensure": ["crashkernel=512M"], "remove": ["foo"]},
        {"op": "action", "name": "kdump-build-image", "release": REL},
        {"op": "service-enable", "unit": "kdump.service"},
        {"op": "action", "name": "kdump-reload"},
    ]  # fmt: skip
    expect = [{"kind": "value", "path": LOADED, "value": "1"}]
    document = {
        "format_version": "1.0",
        "id": "12" * 32,
        "title": "all",
        "steps": steps,
        "expect": expect,
        "family": "ostree",
    }
    document.update(more)
    return document
