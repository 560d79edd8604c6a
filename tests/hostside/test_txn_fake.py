# SPDX-License-Identifier: Apache-2.0
"""A host made of files: enough of Debian's tools, on a tree, to apply a change to it. Not a test of its own."""

import hashlib
import os
import shutil
import stat
import sys

UTILS = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", "playbooks", "module_utils"))
if UTILS not in sys.path:
    sys.path.insert(0, UTILS)

STATE = "/var/lib/kdump-orchestrator"
REL = "6.1.0-56-cloud-amd64"
ID = "ab" * 32
DEFAULTS = "/etc/default/kdump-tools"
SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"
SYSCTL = "/etc/sysctl.d/60-kdump-orchestrator.conf"
GRUB = "/boot/grub/grub.cfg"
NOTIFIERS = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"
LOADED = "/sys/kernel/kexec_crash_loaded"
KDUMP_FILES = {
    DEFAULTS: 'USE_KDUMP=1\nKDUMP_COREDIR="/var/crash"\n#KDUMP_CMDLINE_APPEND="reset_devices"\n',
    "/etc/default/grub.d/kdump-tools.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=384M-:128M"\n',
    "/etc/kdump/sysctl.conf": "vm.nr_hugepages=0\n",
}
KDUMP_PROGRAMS = ["/usr/sbin/kdump-config", "/etc/kernel/postinst.d/kdump-tools"]
PROGRAMS = [
    "/usr/bin/apt-get", "/usr/bin/apt-cache", "/usr/bin/dpkg", "/usr/sbin/update-grub", "/usr/bin/grub-script-check",
    "/usr/bin/systemctl", "/usr/sbin/mkinitramfs", "/usr/sbin/kexec",
]  # fmt: skip
MASK = "/etc/systemd/system/kdump-tools.service"
UNIT_LINK = "/etc/systemd/system/basic.target.wants/kdump-tools.service"


def sha(text):
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


class Host:
    """``installed``: kdump-tools is there, and a capture kernel is loaded."""

    def __init__(self, root, installed=True, make=True):
        self.root = str(root)
        if make:
            self.build(installed)

    def real(self, path):
        return self.root + path

    def put(self, path, text, mode=0o644, age=1000):
        real = self.real(path)
        os.makedirs(os.path.dirname(real), exist_ok=True)
        with open(real, "w") as stream:
            stream.write(text)
        os.chmod(real, mode)
        os.utime(real, ns=(10**18 + age, 10**18 + age))

    def get(self, path):
        with open(self.real(path)) as stream:
            return stream.read()

    def here(self, path):
        return os.path.lexists(self.real(path))

    def drop(self, path):
        if self.here(path):
            os.unlink(self.real(path))

    def link(self, path, target):
        self.drop(path)
        os.makedirs(os.path.dirname(self.real(path)), exist_ok=True)
        os.symlink(target, self.real(path))

    def build(self, installed):
        for path in PROGRAMS + (KDUMP_PROGRAMS if installed else []):
            self.put(path, "#!/bin/false\n", 0o755)
        self.put("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
        self.put("/boot/vmlinuz-" + REL, "kernel")
        self.put("/boot/initrd.img-" + REL, "initrd" * 100)
        self.put("/etc/initramfs-tools/initramfs.conf", "MODULES=most\n")
        self.put("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda1 crashkernel=384M-:128M quiet\n")
        self.put("/proc/sys/kernel/osrelease", REL + "\n")
        self.put("/proc/sys/kernel/random/boot_id", "boot-one\n")
        self.put("/proc/sys/kernel/kexec_load_disabled", "0\n")
        self.put("/proc/sys/kernel/panic_on_oops", "0\n")
        self.put("/proc/sys/kernel/panic", "0\n")
        self.put("/sys/kernel/kexec_crash_size", "134217728\n")
        self.put(LOADED, "0\n")
        self.put(NOTIFIERS, "N\n")
        os.makedirs(self.real("/etc/systemd/system"), exist_ok=True)
        os.makedirs(self.real("/etc/sysctl.d"), exist_ok=True)
        self.set_packages({"bash": "installed", "grub-common": "installed"})
        if installed:
            for path, text in KDUMP_FILES.items():
                self.put(path, text, 0o600 if path == DEFAULTS else 0o644)
            self.set_packages({**self.packages(), "kdump-tools": "installed", "kexec-tools": "installed"})
            self.put("/var/lib/kdump/initrd.img-" + REL, "old image")
            self.put("/var/lib/kdump/latest_sysctls-" + REL, "vm.nr_hugepages=0\n")
            self.put("/var/lib/kdump/initramfs-tools/initramfs.conf", "MODULES=dep\n")
            self.put("/var/lib/kdump/initramfs-tools/conf.d/old", "x\n")
            self.link("/var/lib/kdump/vmlinuz", "/boot/vmlinuz-" + REL)
            self.link("/var/lib/kdump/initrd.img", "/var/lib/kdump/initrd.img-" + REL)
            self.put("/var/crash/kexec_cmd", "kexec old\n")
            self.put(LOADED, "1\n")
            self.put("/proc/sys/kernel/panic_on_oops", "1\n")
            self.put("/loaded-config", sha(self.get(DEFAULTS)))
        self.update_grub()

    def packages(self):
        rows = [row.split(": ", 1)[1] for row in self.get("/var/lib/dpkg/status").split("\n") if row]
        return {name: status.split()[-1] for name, status in zip(rows[::2], rows[1::2], strict=False)}

    def set_packages(self, packages):
        rows = ["Package: {}\nStatus: install ok {}\n".format(*row) for row in sorted(packages.items())]
        self.put("/var/lib/dpkg/status", "\n".join(rows) + "\n")

    def arguments(self):
        found = "quiet"
        folder = self.real("/etc/default/grub.d")
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if name.endswith(".cfg"):
                text = self.get("/etc/default/grub.d/" + name)
                if name.startswith("zz-"):
                    found = " ".join(word for word in found.split() if not word.startswith("crashkernel="))
                found += " " + text.partition("_DEFAULT ")[2].strip().rstrip('"')
        return found

    def update_grub(self):
        args = self.arguments()
        text = f"### BEGIN /etc/grub.d/10_linux ###\nmenuentry 'Debian' {{\n\tlinux\t/boot/vmlinuz-{REL} root=/dev/vda1 ro {args}\n}}\n"
        text += f"menuentry 'Debian (recovery mode)' {{\n\tlinux /boot/vmlinuz-{REL} root=/dev/vda1 ro single\n}}\n### END /etc/grub.d/10_linux ###\n"
        text += "### BEGIN /etc/grub.d/30_os-prober ###\n\tlinux /boot/other root=/dev/vdb1\n### END /etc/grub.d/30_os-prober ###\n"
        self.drop(GRUB)
        self.put(GRUB, text, 0o444, age=hash(text) % 1000)

    # What a change must have left alone, or put back.

    def picture(self):
        found = {}
        for folder, folders, names in os.walk(self.root):
            inside = folder[len(self.root) :]
            if inside == STATE or inside.startswith(STATE + "/"):
                continue
            for name in folders + names:
                path = inside + "/" + name
                if path == STATE:
                    continue
                info = os.lstat(self.real(path))
                if stat.S_ISLNK(info.st_mode):
                    found[path] = ("link", os.readlink(self.real(path)), info.st_mtime_ns)
                elif stat.S_ISDIR(info.st_mode):
                    found[path] = ("dir", stat.S_IMODE(info.st_mode))
                else:
                    kernel = path.startswith(("/sys/", "/proc/")) or path in ("/var/lib/dpkg/status", "/loaded-config")
                    content = self.get(path)
                    mode = stat.S_IMODE(info.st_mode)
                    found[path] = (
                        ("file", mode, content.strip(), None) if kernel else ("file", mode, content, info.st_mtime_ns)
                    )
        if self.get(LOADED).strip() != "1":
            found.pop("/loaded-config", None)
        return found


class Tools:
    """Behaves like the programs in the table. ``fail``: {name: how}; ``on``: called before and amid each of them."""

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

    def apt_policy(self, argv):
        return 0, "".join(f"{name}:\n  Installed: (none)\n  Candidate: 1\n" for name in argv[2:])

    def apt_update(self, argv):
        pass

    def apt_simulate(self, argv):
        return 0, "Inst kexec-tools (2 Debian)\nInst kdump-tools (1 Debian)\nConf kdump-tools (1 Debian)\n"

    def apt_install(self, argv):
        host = self.host
        for name in ("kexec-tools", "kdump-tools"):
            host.set_packages({**host.packages(), name: "unpacked"})
            self.on()
        for path, text in KDUMP_FILES.items():
            host.put(path, text)
            self.on()
        for path in KDUMP_PROGRAMS:
            host.put(path, "#!/bin/false\n", 0o755)
        host.link(UNIT_LINK, "/lib/systemd/system/kdump-tools.service")
        host.link("/etc/rc2.d/S01kdump-tools", "../init.d/kdump-tools")
        self.on()
        host.set_packages({**host.packages(), "kexec-tools": "installed", "kdump-tools": "installed"})
        host.update_grub()

    def dpkg_configure(self, argv):
        self.host.set_packages(
            {name: "installed" if status == "unpacked" else status for name, status in self.host.packages().items()}
        )

    def apt_purge_simulate(self, argv):
        return 0, "".join(f"Purg {name} [1]\n" for name in argv[4:] if name in self.host.packages())

    def apt_purge(self, argv):
        host, names = self.host, argv[argv.index("purge") + 1 :]
        assert set(names) <= {"kdump-tools", "kexec-tools"}
        for path in [*KDUMP_FILES, *KDUMP_PROGRAMS, UNIT_LINK, "/etc/rc2.d/S01kdump-tools"]:
            host.drop(path)
            self.on()
        shutil.rmtree(host.real("/var/lib/kdump"), ignore_errors=True)
        self.on()
        for folder in (
            "/etc/kdump",
            "/etc/kernel/postinst.d",
            "/etc/kernel",
            "/etc/rc2.d",
            "/etc/systemd/system/basic.target.wants",
        ):
            if os.path.isdir(host.real(folder)) and not os.listdir(host.real(folder)):
                os.rmdir(host.real(folder))
        host.set_packages({name: status for name, status in host.packages().items() if name not in names})
        host.update_grub()

    def grub_regenerate(self, argv):
        self.host.put(GRUB + ".new", "half\n")
        self.on()
        self.host.update_grub()
        self.host.drop(GRUB + ".new")

    def grub_check(self, argv):
        pass

    def kdump_hook(self, argv):
        host, image = self.host, "/var/lib/kdump/initrd.img-" + argv[1]
        host.drop("/var/lib/kdump/initramfs-tools/conf.d/old")
        host.put("/var/lib/kdump/initramfs-tools/conf.d/zzz-kdump", "MODULES=dep\n")
        host.drop(image)
        self.on()
        host.put(image + ".new", "new image", age=5)
        self.on()
        os.rename(host.real(image + ".new"), host.real(image))
        host.put("/var/lib/kdump/size_initrd.img-" + argv[1], "30\n")

    def kdump_symlinks(self, argv):
        self.host.link("/var/lib/kdump/vmlinuz", "/boot/vmlinuz-" + argv[2])
        self.on()
        self.host.link("/var/lib/kdump/initrd.img", "/var/lib/kdump/initrd.img-" + argv[2])

    def kdump_test(self, argv):
        return 0, "kexec command to be used:\n kexec -p\n"

    def kdump_load(self, argv):
        host = self.host
        if host.get(LOADED).strip() == "1":
            return 1, "Cannot change symbolic links when kdump is loaded"
        host.put("/var/lib/kdump/latest_sysctls-" + REL, host.get("/etc/kdump/sysctl.conf"), age=9)
        self.kdump_symlinks(["", "", REL])
        if self.fail.get("load") == "bad config" and "bad" in host.get(DEFAULTS):
            return 1, "failed to load kdump kernel"
        host.put(LOADED, "1\n")
        host.put("/proc/sys/kernel/panic_on_oops", "1\n")
        host.put("/var/crash/kexec_cmd", "kexec new\n", age=7)
        host.put("/loaded-config", sha(host.get(DEFAULTS)))
        return None

    def kdump_reload(self, argv):
        self.kdump_unload(argv)
        self.on()
        return self.kdump_load(argv)

    def kdump_unload(self, argv):
        self.host.put(LOADED, "0\n")
        self.host.drop("/loaded-config")

    kexec_unload = kdump_unload

    def unit_state(self, argv):
        if self.host.here(MASK):
            return (1, "masked\n")
        return (0, "enabled\n") if self.host.here(UNIT_LINK) else (1, "disabled\n")

    def unit_enable(self, argv):
        self.host.link("/etc/rc2.d/S01kdump-tools", "../init.d/kdump-tools")
        self.on()
        self.host.link(UNIT_LINK, "/lib/systemd/system/kdump-tools.service")

    def unit_disable(self, argv):
        self.host.drop(UNIT_LINK)

    def unit_mask(self, argv):
        self.host.link("/etc/systemd/system/" + argv[-1], "/dev/null")
        self.on()

    def unit_unmask(self, argv):
        self.host.drop("/etc/systemd/system/" + argv[-1])
        self.on()

    def units_reload(self, argv):
        pass


SNIPPET_TEXT = 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel=512M-:192M"\n'


def change(host, installed=True, **more):
    """A change with every kind of step."""
    steps = [] if installed else [{"op": "package-install", "names": ["kdump-tools"]}]
    steps += [
        {"op": "write", "path": SNIPPET, "text": SNIPPET_TEXT, "mode": "0644", "before_sha256": None},
        {"op": "assign", "path": DEFAULTS, "assignments": [["KDUMP_CMDLINE_APPEND", "reset_devices nr_cpus=1"]],
         "before_sha256": sha(host.get(DEFAULTS)) if installed else "from-package", "after_sha256": None},
        {"op": "write", "path": SYSCTL, "text": "kernel.panic = 10\n", "before_sha256": sha(host.get(SYSCTL)) if host.here(SYSCTL) else None},
        {"op": "action", "name": "grub-regenerate"},
        {"op": "action", "name": "kdump-build-image", "release": REL},
        {"op": "service-enable", "unit": "kdump-tools.service"},
        {"op": "knob", "path": NOTIFIERS, "value": "Y", "before": "N"},
        {"op": "knob", "path": "/proc/sys/kernel/panic", "value": "10", "before": "0"},
        {"op": "action", "name": "kdump-reload"},
    ]  # fmt: skip
    expect = [
        {
            "kind": "words",
            "path": GRUB,
            "line_prefix": "linux",
            "once": {"crashkernel=": "crashkernel=512M-:192M"},
            "present": ["quiet"],
            "absent": ["nokdump", "bad="],
        },
        {"kind": "value", "path": LOADED, "value": "1"},
        {"kind": "value", "path": NOTIFIERS, "value": "1"},
        {"kind": "sha256", "path": SNIPPET, "value": sha(SNIPPET_TEXT)},
    ]
    document = {"format_version": "1.0", "id": ID, "title": "all kinds", "steps": steps, "expect": expect}
    document.update(more)
    return document
