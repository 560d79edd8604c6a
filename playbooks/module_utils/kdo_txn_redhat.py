# SPDX-License-Identifier: Apache-2.0
"""RHEL, its rebuilds, Fedora and Amazon Linux: kdumpctl, and packages by dnf and rpm.

kdumpctl builds for the running kernel, writes the image in place (dracut copies over it, so a hard link would not keep
the old one), and has no dry run: what it would refuse is looked for here. Its ``test`` crashes the machine and is never
run. Sources: rhkdump/kdump-utils kdumpctl, mkdumprd, kdump-utils.spec; dracut.sh; dnf(8), rpm(8).
"""

import os
import re

try:
    from ansible.module_utils import kdo_arguments as arguments
    from ansible.module_utils import kdo_txn_files as files
    from ansible.module_utils import kdo_txn_loader as loader
    from ansible.module_utils.kdo_conf import ConfError, settings
    from ansible.module_utils.kdo_edit import EditError, read_assignments
    from ansible.module_utils.kdo_txn_action import Family, StepError
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_fs import sha256
    from ansible.module_utils.kdo_txn_host import running_release
except ImportError:
    import kdo_arguments as arguments
    import kdo_txn_files as files
    import kdo_txn_loader as loader
    from kdo_conf import ConfError, settings
    from kdo_edit import EditError, read_assignments
    from kdo_txn_action import Family, StepError
    from kdo_txn_cmd import CommandError
    from kdo_txn_files import Refused
    from kdo_txn_fs import sha256
    from kdo_txn_host import running_release

UNIT = "kdump.service"
STATE = "/var/lib/kdump"
STATUS = STATE + "/vmcore-creation.status"
CONSOLE = ("/etc/vconsole.conf", "/etc/X11/xorg.conf.d/00-keyboard.conf")  # written where the first is missing
LOAD_NOTE = "/run/kdump-orchestrator/loaded"
UNKNOWN_IMAGE = 64 * 1024 * 1024
PACKAGE_ROOM = 64 * 1024 * 1024

TARGETS = ("raw", "ext2", "ext3", "ext4", "minix", "btrfs", "xfs", "nfs", "ssh", "virtiofs")
ACTIONS = ("reboot", "halt", "poweroff", "shell", "dump_to_rootfs")
# What one key may hold; None = anything.
KEYS = {
    "failure_action": ACTIONS,
    "default": ACTIONS,
    "final_action": ("reboot", "halt", "poweroff"),
    "force_rebuild": ("0", "1"),
    "force_no_rebuild": ("0", "1"),
}
FREE_KEYS = TARGETS + (
    "path",
    "sshkey",
    "core_collector",
    "kdump_pre",
    "kdump_post",
    "kdump_emergency",
    "extra_bins",
    "extra_modules",
    "dracut_args",
    "fence_kdump_args",
    "fence_kdump_nodes",
    "auto_reset_crashkernel",
)

# The parts of dnf's table that say what a transaction does; anything else that looks like one is not understood.
_COMING = ("Installing:", "Installing dependencies:", "Installing weak dependencies:")
_SECTION = re.compile(r"([A-Z][a-z]+(?: [a-z]+)*:)\s*\Z")
_ROW = re.compile(r" ([A-Za-z0-9][A-Za-z0-9+._-]*)(?:\s|\Z)")


def conf_problem(text):
    """None, or why kdumpctl would not take this kdump.conf."""
    try:
        found = {key: value for key, (value, _line) in settings(text).items()}
    except ConfError as error:
        return str(error)
    for key, value in sorted(found.items()):
        if key not in FREE_KEYS and key not in KEYS:
            return "%s is not a setting that kdumpctl knows" % key
        if value not in KEYS.get(key, (value,)):
            return "%s cannot be %r" % (key, value[:40])
    targets = [key for key in TARGETS if key in found] + ["dracut_args"] * found.get("dracut_args", "").count("--mount")
    if len(targets) > 1:
        return "there is more than one target: %s" % ", ".join(targets)
    if "default" in found and "failure_action" in found:
        return "default and failure_action are the same setting"
    if found.get("force_rebuild") == found.get("force_no_rebuild") == "1":
        return "force_rebuild and force_no_rebuild contradict each other"
    if "ssh" in found and not re.match(r"[^@\s]+@[^@\s]+\Z", found["ssh"]):
        return "the ssh target is not user@server"
    words = found.get("core_collector", "").split()
    if words[:1] == ["makedumpfile"] and set(targets) & {"raw", "ssh"} and "-F" not in words:
        return "makedumpfile needs -F for a target that takes a stream"
    return None


def transaction(said):
    """(names that come, what else dnf would do), from its table. Raises ValueError if that cannot be read."""
    section, coming, other = None, [], []
    for row in said.split("\n"):
        match = _SECTION.match(row)
        if match:
            section = match.group(1)
            if section == "Transaction Summary:":
                break
            continue
        if row.startswith("Transaction Summary"):
            break
        match = _ROW.match(row)
        if section is None or not match:
            continue  # long names are followed by a row of their own, "replacing" by two more blanks
        if section in _COMING:
            coming.append(match.group(1))
        else:
            other.append("%s %s" % (section.rstrip(":").lower(), match.group(1)))
    if re.search(r"^\s+replacing\s", said, re.M):
        other.append("replacing of another package")
    if not coming:
        raise ValueError("it names no package that would come")
    return sorted(set(coming)), other


class RedHat(Family):
    name = "redhat"
    unloader = "kdump-stop"
    units = {UNIT: ("/etc/systemd/system/multi-user.target.wants/" + UNIT,)}
    packages = ("kdump-utils", "kexec-tools", "makedumpfile")
    brings = {
        files.KDUMP_CONF: ("kdump-utils", "kexec-tools"),
        files.KDUMP_SYSCONFIG: ("kdump-utils", "kexec-tools"),
    }

    # Packages.

    def installed(self, tree, shop):
        if not shop.has("rpm-list"):
            return {}
        status, _, whole = shop.run("rpm-list")
        names = whole.split() if status == 0 else []
        return {name: "installed" for name in names if name != "gpg-pubkey"}  # keys are not packages

    def look_install(self, look, missing):
        if not look.installed:
            raise Refused("packages cannot be installed", "rpm names none", "this needs a host with rpm and dnf")
        look.commands("dnf-simulate", "dnf-install", "rpm-erase-test", "rpm-erase")
        look.need("/usr/share/x", PACKAGE_ROOM)
        look.need("/var/cache/dnf/x", PACKAGE_ROOM)

    def install(self, doer, index, missing):
        _, said, whole = doer.shop.run("dnf-simulate", *missing)  # it ends with 1: nobody said yes
        try:
            coming, other = transaction(whole)
        except ValueError as error:
            raise StepError("dnf cannot install the packages: %s" % error, said)
        if other:
            # A package that was updated could not be taken back to what it was.
            raise StepError("installing would do more: %s" % ", ".join(other[:10]), said)
        if not set(missing) <= set(coming):
            raise StepError("dnf would not install %s" % ", ".join(sorted(set(missing) - set(coming))), said)
        boot = {path: doer.tree.read(path) for path in boot_files(doer.tree)}
        # Written down first: after a kill it says which of the packages that are new are ours to remove.
        doer.tx.append("packages", index=index, names=coming)
        output = doer.shop.must("dnf-install", *missing)
        # The package's scripts may set crashkernel= themselves. What the boot configuration says is the plan's business.
        for path, data in sorted(boot.items()):
            if doer.tree.is_file(path) and doer.tree.read(path) != data:
                doer.tree.write(path, data)
        return output

    def uninstall(self, undo):
        before, now = undo.manifest["packages"], self.installed(undo.tree, undo.shop)
        half = [name for name in undo.brought() if name not in now and name not in before]
        if half and not any(record["event"] == "commit" for record in undo.records):
            # Cut off in the middle, rpm leaves files that its database does not name yet: finish, from what was
            # downloaded, then remove. Where nothing was downloaded nothing was unpacked either, and this fails.
            self.finish(undo.shop, half)
        names = self._ours(undo)
        if not names:
            return
        status, said, _ = undo.shop.run("rpm-erase-test", *names)
        if status != 0:
            raise CommandError("rpm-erase", "the packages cannot be removed", said)
        undo.shop.must("rpm-erase", *names)
        undo.note("packages: " + ", ".join(names))
        left = self._ours(undo)
        if left:
            raise CommandError("rpm-erase", "still there: %s" % ", ".join(left))

    def finish(self, shop, names):
        """Install the rest of what was cut off, from what is there."""
        shop.run("dnf-finish", *names)

    def _ours(self, undo):
        """Packages that are new since the picture and that the journal names as brought by us."""
        before, now = undo.manifest["packages"], self.installed(undo.tree, undo.shop)
        return [name for name in undo.brought() if name in now and name not in before]

    def install_reach(self, tree, add):
        for path in (files.KDUMP_CONF, files.KDUMP_SYSCONFIG):
            add("derived", path, path + ".rpmnew", path + ".rpmsave")
        add("derived", *self.units[UNIT])
        add("derived", *boot_files(tree))

    # The capture image and its loading.

    def capture_reach(self, tree, change, releases, add):
        for release in set(releases) | {_release(tree)}:
            add("derived", *_images(release))
            kept = "/boot/.initramfs-%s.img.default" % release
            if tree.stat(kept) is not None:  # left by fadump: the image is put back from it, and it goes
                add("derived", kept, kept + ".checksum", "/boot/initramfs-%s.img" % release)
        add("derived", STATUS, LOAD_NOTE)
        if tree.stat(CONSOLE[0]) is None:
            add("derived", *CONSOLE)

    def edit_reach(self, tree, step, add):
        if step["path"] == files.KDUMP_CONF:
            # The service builds it anew at a later boot when this file is newer. Left as it is then, it would be newer
            # than the file that a roll-back puts back, and keep the new target.
            add("later", *_images(_release(tree)))

    def look_image(self, look, release):
        look.commands("kdump-rebuild")
        look.kernel(release)
        if release != _release(look.tree):
            why = "kdumpctl builds for the kernel that runs (%s), not for %s" % (_release(look.tree), release)
            raise Refused("the capture image cannot be built", why, "reboot into that kernel: its service builds it")
        if not look.coming and not any(look.tree.exists(path) for path in ("/usr/bin/dracut", "/usr/sbin/dracut")):
            raise Refused("the capture image cannot be built", "there is no /usr/bin/dracut", "install dracut")
        known = [info.st_size for info in map(look.tree.stat, _images(release)) if info is not None]
        look.need("/boot/x", max(known) if known else UNKNOWN_IMAGE)

    def build(self, doer, release):
        before = _states(doer.tree, release)
        self.check_load(doer)
        output = doer.shop.must("kdump-rebuild")
        if not any(new[0] > 0 for new in _states(doer.tree, release) - before):
            raise StepError("kdumpctl ended well, but it built no %s" % _images(release)[0], output)
        return output

    def look_load(self, look):
        look.commands("kdump-restart", "kdump-stop")

    def check_load(self, doer):
        data = doer.tree.read(files.KDUMP_CONF)
        problem = "it is not there" if data is None else conf_problem(data.decode("utf-8", "surrogateescape"))
        if problem:
            raise StepError("kdumpctl would not take %s: %s" % (files.KDUMP_CONF, problem))

    def load(self, tree, shop):
        output = shop.must("kdump-restart")
        note_load(tree)
        return output


def note_load(tree):
    """kdumpctl and load.sh record nothing, so whether this very file was loaded could not be told later in this boot."""
    data = tree.read(files.KDUMP_SYSCONFIG)
    if data is not None:
        tree.write(LOAD_NOTE, (sha256(data) + "\n").encode("ascii"), 0o644)


def _images(release):
    return ["%s/initramfs-%skdump.img" % (folder, release) for folder in ("/boot", STATE)]


def _states(tree, release):
    """What can be seen of the images: size, inode, time, and which it is."""
    found = [(path, tree.stat(path)) for path in _images(release)]
    return {(info.st_size, info.st_ino, info.st_mtime_ns, path) for path, info in found if info is not None}


def _release(tree):
    """The kernel that kdumpctl works for."""
    try:
        data = (tree.read(files.KDUMP_SYSCONFIG) or b"").decode("utf-8", "surrogateescape")
        named = read_assignments(data).get("KDUMP_KERNELVER", ("", 0))[0]
    except EditError:
        named = ""
    return named if named and re.match(r"[A-Za-z0-9][A-Za-z0-9._+~-]*\Z", named) else running_release(tree)


def boot_files(tree):
    """Where boot arguments are kept: the package's scripts may change them all by grubby."""
    found = [arguments.KERNEL_CMDLINE, arguments.ZIPL, arguments.GRUB_DEFAULTS, "/boot/grub2/grubenv"]
    for folder in loader.FOLDERS:
        found += [folder + "/" + name for name in loader.names(tree, folder)]
    try:
        vendors = sorted(os.listdir(tree.real("/boot/efi/EFI")))
    except OSError:
        vendors = []
    found += ["/boot/efi/EFI/%s/grubenv" % name for name in vendors]
    return [path for path in found if tree.is_file(path)]
