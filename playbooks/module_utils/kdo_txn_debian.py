# SPDX-License-Identifier: Apache-2.0
"""Debian and Ubuntu: kdump-tools, and packages by apt-get."""

import fnmatch
import posixpath
import re

try:
    from ansible.module_utils import kdo_txn_files as files
    from ansible.module_utils.kdo_edit import EditError, read_assignments
    from ansible.module_utils.kdo_txn_action import Family, StepError
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_host import loaded
except ImportError:
    import kdo_txn_files as files
    from kdo_edit import EditError, read_assignments
    from kdo_txn_action import Family, StepError
    from kdo_txn_cmd import CommandError
    from kdo_txn_files import Refused
    from kdo_txn_host import loaded

CAPTURE = "/var/lib/kdump"
CAPTURE_SYSCTL = "/etc/kdump/sysctl.conf"
PACKAGE_SNIPPET = "/etc/default/grub.d/kdump-tools.cfg"
DPKG_STATUS = "/var/lib/dpkg/status"
PANIC_ON_OOPS = "/proc/sys/kernel/panic_on_oops"
UNIT = "kdump-tools.service"
UNKNOWN_IMAGE = 64 * 1024 * 1024
PACKAGE_ROOM = 32 * 1024 * 1024
# kdump-config test ends with 0 whatever it finds; these are the findings that make a load fail.
_TEST_FAILURES = ("USE_KDUMP is not set or zero", "kdump is not supported by this kernel", "no crashkernel= parameter")


class Debian(Family):
    name = "debian"
    menu = "grub-regenerate"
    unloader = "kdump-unload"
    units = {
        UNIT: (
            "/etc/systemd/system/basic.target.wants/kdump-tools.service",
            "/etc/systemd/system/multi-user.target.wants/kdump-tools.service",
            "/etc/systemd/system/sysinit.target.wants/kdump-tools.service",
        )
    }
    script_links = tuple(("/etc/rc%s.d" % level, "[SK]??kdump-tools") for level in "0123456S")
    packages = (
        "kdump-tools",
        "kexec-tools",
        "makedumpfile",
        "linux-crashdump",
        "crash",
        "initramfs-tools",
        "initramfs-tools-core",
        "busybox",
        "file",
    )
    brings = {files.KDUMP_DEFAULTS: ("kdump-tools", "linux-crashdump")}
    kept_knobs = (PANIC_ON_OOPS,)  # kdump-config load sets it

    # Packages.

    def installed(self, tree, shop):
        found, name = {}, ""
        try:
            stream = open(tree.real(DPKG_STATUS), "rb")
        except OSError:
            return {}
        with stream:
            for row in stream:
                if row.startswith(b"Package:"):
                    name = row[8:].decode("ascii", "replace").strip()
                elif row.startswith(b"Status:"):
                    status = row.decode("ascii", "replace").split()[-1]
                    if found.get(name) != "installed":  # another architecture of the same name
                        found[name] = status
        return found

    def look_install(self, look, missing):
        if not look.installed:
            raise Refused(
                "packages cannot be installed", "there is no %s" % DPKG_STATUS, "this needs a Debian family host"
            )
        look.commands("apt-policy", "apt-simulate", "apt-install", "apt-purge", "apt-update", "dpkg-configure")
        look.need("/usr/share/x", PACKAGE_ROOM)
        look.need("/var/cache/apt/x", PACKAGE_ROOM)

    def install(self, doer, index, missing):
        policy = doer.shop.run("apt-policy", *missing)[2]
        if len(re.findall(r"^\s*Candidate:\s*(?!\(none\))\S+", policy, re.M)) < len(missing):
            doer.shop.must("apt-update")
        plan = doer.shop.run("apt-simulate", *missing)
        if plan[0] != 0:
            raise StepError("the packages cannot be installed", plan[1])
        coming = sorted(set(re.findall(r"^Inst (\S+)", plan[2], re.M)))
        leaving = sorted(set(re.findall(r"^(?:Remv|Purg) (\S+)", plan[2], re.M)))
        if leaving:
            raise StepError("installing would remove %s" % ", ".join(leaving))
        # Written down first: after a kill it says which of the packages that are new are ours to remove.
        doer.tx.append("packages", index=index, names=sorted({name.split(":")[0] for name in coming + missing}))
        return doer.shop.must("apt-install", *missing)

    def uninstall(self, undo):
        commit = any(record["event"] == "commit" for record in undo.records)
        if not commit:
            undo.shop.run("dpkg-configure")  # apt-get may have been cut off in the middle; purging copes with the rest
        purge, remove = self._ours(undo)
        for command, names in (("apt-purge", purge), ("apt-remove", remove)):
            if not names:
                continue
            status, said, whole = undo.shop.run("apt-purge-simulate", *names)
            going = {name.split(":")[0] for name in re.findall(r"^(?:Remv|Purg) (\S+)", whole, re.M)}
            if status != 0:
                raise CommandError(command, "apt-get does not see how", said)
            if going - set(names):
                raise CommandError(command, "it would also remove %s" % ", ".join(sorted(going - set(names))))
            undo.shop.must(command, *names)
            undo.note("packages: " + ", ".join(names))
        left = self._ours(undo)
        if left[0] + left[1]:
            raise CommandError("apt-purge", "still there: %s" % ", ".join(left[0] + left[1]))

    def _ours(self, undo):
        """Packages that are new since the picture and that the journal names as brought by us."""
        before, now = undo.manifest["packages"], self.installed(undo.tree, undo.shop)
        gone = ("not-installed", None)
        new = [name for name in undo.brought() if before.get(name) != "installed" and now.get(name) not in gone]
        purge = [name for name in new if before.get(name) in gone]
        remove = [name for name in new if name not in purge and now.get(name) != "config-files"]
        return purge, remove

    def install_reach(self, tree, add):
        add("derived", files.KDUMP_DEFAULTS, PACKAGE_SNIPPET, *self.units[UNIT])
        for path in tree.walk(CAPTURE) or () if tree.stat(CAPTURE) is not None else ():
            if path != CAPTURE and not path.startswith(CAPTURE + "/initramfs-tools/"):
                add("derived", path)
        add("anew", files.GRUB_CONFIG)  # the package's scripts make the menu anew
        add("derived", files.GRUB_CONFIG + ".new")

    # The capture image and its loading.

    def capture_reach(self, tree, change, releases, add):
        for release in releases:
            for name in ("initrd.img-%s", "initrd.img-%s.new", "size_initrd.img-%s", "latest_sysctls-%s"):
                add("derived", "%s/%s" % (CAPTURE, name % release))
        add("derived", CAPTURE + "/vmlinuz", CAPTURE + "/initrd.img")
        add.trees.append(CAPTURE + "/initramfs-tools")
        for folder in _core_dirs(tree, change):
            add("derived", folder + "/kexec_cmd")
            if tree.stat(folder) is None:
                add("derived", folder)

    def edit_reach(self, tree, step, add):
        for folder in _core_dirs(tree, {"steps": [step]}):
            if tree.stat(folder) is None:
                add("later", folder + "/kdump_lock", folder + "/kexec_cmd")

    def keeps_inode(self, path):
        return fnmatch.fnmatch(path, CAPTURE + "/initrd.img-*")

    def look_image(self, look, release):
        look.commands("kdump-hook", "kdump-symlinks")
        look.kernel(release)
        if not look.tree.exists("/usr/sbin/mkinitramfs") and not look.coming:
            raise Refused(
                "the capture image cannot be built",
                "there is no /usr/sbin/mkinitramfs, and kdump-tools cannot use dracut",
                "install initramfs-tools-core (initramfs-tools would remove dracut)",
            )
        sizes = [look.tree.stat(path) for path in (CAPTURE + "/initrd.img-" + release, "/boot/initrd.img-" + release)]
        known = [info.st_size for info in sizes if info is not None]
        look.need(CAPTURE + "/x", known[0] if known else UNKNOWN_IMAGE)

    def build(self, doer, release):
        tree = doer.tree
        image = "%s/initrd.img-%s" % (CAPTURE, release)
        before = tree.stat(image)
        output = doer.shop.must("kdump-hook", release, "/boot/vmlinuz-" + release)
        after = tree.stat(image)
        # The hook ends with 0 without having built anything in a chroot, or where it does not know the kernel.
        fresh = after is not None and after.st_size > 0
        if fresh and before is not None:
            fresh = (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns)
        if not fresh:
            raise StepError("the hook ended well, but it built no %s" % image, output)
        # kdump-config throws the image away at load when this copy differs from what is configured.
        settings = tree.read(CAPTURE_SYSCTL)
        if settings is not None:
            tree.write("%s/latest_sysctls-%s" % (CAPTURE, release), settings, 0o644)
        if loaded(tree) == "1":
            return (output + "\nThe links follow at the next load: they cannot change while one is loaded.").strip()
        output = (output + "\n" + doer.shop.must("kdump-symlinks", release)).strip()
        for name in ("vmlinuz", "initrd.img"):
            if not (tree.hash(CAPTURE + "/" + name) or "").endswith("-" + release):
                raise StepError("%s/%s does not lead to %s" % (CAPTURE, name, release), output)
        return output

    def look_load(self, look):
        look.commands("kdump-test", "kdump-load", "kdump-reload", "kdump-unload")

    def check_load(self, doer):
        status, output, _ = doer.shop.run("kdump-test")
        found = [failure for failure in _TEST_FAILURES if failure in output]
        if status != 0 or found:
            raise StepError("kdump-config test failed: %s" % (found[0] if found else "status %d" % status), output)

    def load(self, tree, shop):
        return shop.must("kdump-reload" if loaded(tree) == "1" else "kdump-load")


def _core_dirs(tree, change):
    """Where kdump-config notes its last kexec command: KDUMP_COREDIR, before and after the change."""
    found = ["/var/crash"]
    data = tree.read(files.KDUMP_DEFAULTS) or b""
    try:
        value = read_assignments(data.decode("utf-8", "surrogateescape")).get("KDUMP_COREDIR", (None, 0))[0]
    except EditError:
        value = None
    candidates = [value]
    for step in change["steps"]:
        candidates += [pair[1] for pair in step.get("assignments", ()) if pair[0] == "KDUMP_COREDIR"]
    for path in candidates:
        if path and re.match(r"(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+\Z", path) and posixpath.normpath(path) == path:
            found.append(path)
    return sorted(set(found))
