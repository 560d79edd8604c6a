# SPDX-License-Identifier: Apache-2.0
"""SLES and openSUSE: kdump's own scripts, boot arguments by pbl and kdumptool, packages by zypper and rpm.

The scripts behind kdump.service are run directly: starting the unit would also start kdump-commandline.service, which
writes the boot loader beside us. pbl ends with 0 where it does nothing (a boot loader that it does not know, or none that
is set), so what it wrote is read. Sources: openSUSE/kdump init/load.sh, init/mkdumprd, kdumptool/kdumptool,
openSUSE/perl-bootloader pbl.sh and include/library; zypper(8), its xmlout.rnc.
"""

import re

try:
    from ansible.module_utils import kdo_arguments as arguments
    from ansible.module_utils import kdo_txn_files as files
    from ansible.module_utils.kdo_edit import EditError, read_assignments
    from ansible.module_utils.kdo_txn_action import Action, StepError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_fs import remove_quietly, temporary_name
    from ansible.module_utils.kdo_txn_redhat import LOAD_NOTE, RedHat, note_load
except ImportError:
    import kdo_arguments as arguments
    import kdo_txn_files as files
    from kdo_edit import EditError, read_assignments
    from kdo_txn_action import Action, StepError
    from kdo_txn_files import Refused
    from kdo_txn_fs import remove_quietly, temporary_name
    from kdo_txn_redhat import LOAD_NOTE, RedHat, note_load

CAPTURE = "/var/lib/kdump"
IMAGE = CAPTURE + "/initrd"
KERNEL = CAPTURE + "/kernel"
RULES = "/run/udev/rules.d/70-kdump.rules"
PANIC_ON_OOPS = "/proc/sys/kernel/panic_on_oops"
LOADER = "/etc/sysconfig/bootloader"
LOADERS = ("grub2", "grub2-efi")
KERNELS = ("vmlinuz", "Image", "image", "vmlinux")
UNKNOWN_IMAGE = 64 * 1024 * 1024
PACKAGE_ROOM = 64 * 1024 * 1024
# zypper ends with these though all was installed: a reboot is advised, zypper is to be restarted, a repository was left out.
_FINE = (0, 102, 103, 106)
_UNITS = ("kdump.service", "kdump-early.service", "kdump-notify.service", "kdump-commandline.service")


def variables(tree, path):
    """``{name: value}`` of a file of assignments; the value is None where only a shell could tell."""
    data = (tree.read(path) or b"").decode("utf-8", "surrogateescape")
    try:
        return {name: pair[0] for name, pair in read_assignments(data).items()}
    except EditError as error:
        raise StepError("%s cannot be read: %s" % (path, error))


def summary(said):
    """(names that come, what else zypper would do), from its XML. Raises ValueError if that cannot be read."""
    match = re.search(r"<install-summary[^>]*>(.*)</install-summary>", said, re.S)
    if not match:
        raise ValueError("it says nothing of what it would install")
    coming, other = [], []
    for part, rows in re.findall(r"<(to-[a-z-]+)[^>]*>(.*?)</\1>", match.group(1), re.S):
        for solvable in re.findall(r"<solvable\b[^>]*>", rows):
            name = re.search(r'\bname="([^"]+)"', solvable)
            kind = re.search(r'\btype="([^"]+)"', solvable)
            if not name or not kind:
                raise ValueError("it names something without saying what")
            if part == "to-install" and kind.group(1) == "package":
                coming.append(name.group(1))
            elif kind.group(1) == "package":
                other.append("%s %s" % (part, name.group(1)))
    if not coming:
        raise ValueError("it names no package that would come")
    return sorted(set(coming)), other


class Suse(RedHat):
    """What rpm does is as on Red Hat's; everything else is SUSE's own."""

    name = "suse"
    unloader = "unload.sh"
    units = {"kdump.service": tuple("/etc/systemd/system/multi-user.target.wants/" + unit for unit in _UNITS)}
    packages = ("kdump", "kexec-tools", "makedumpfile")
    menu = "pbl-arguments"
    brings = {files.KDUMP_SYSCONFIG: ("kdump",)}
    kept_knobs = (PANIC_ON_OOPS,)  # load.sh sets it

    # Packages.

    def look_install(self, look, missing):
        if not look.installed:
            raise Refused("packages cannot be installed", "rpm names none", "this needs a host with rpm and zypper")
        look.commands("zypper-simulate", "zypper-install", "rpm-erase-test", "rpm-erase")
        look.need("/usr/share/x", PACKAGE_ROOM)
        look.need("/var/cache/zypp/x", PACKAGE_ROOM)

    def install(self, doer, index, missing):
        _, said, whole = doer.shop.run("zypper-simulate", *missing)
        try:
            coming, other = summary(whole)
        except ValueError as error:
            raise StepError("zypper cannot install the packages: %s" % error, said)
        if other:
            # A package that was updated could not be taken back to what it was.
            raise StepError("installing would do more: %s" % ", ".join(other[:10]), said)
        if not set(missing) <= set(coming):
            raise StepError("zypper would not install %s" % ", ".join(sorted(set(missing) - set(coming))), said)
        # Written down first: after a kill it says which of the packages that are new are ours to remove.
        doer.tx.append("packages", index=index, names=coming)
        status, said, _ = doer.shop.run("zypper-install", *missing)
        lacking = [name for name in missing if name not in self.installed(doer.tree, doer.shop)]
        if status not in _FINE or lacking:
            raise StepError(
                "zypper ended with status %d%s" % (status, lacking and ", without the packages" or ""), said
            )
        return said

    def finish(self, shop, names):
        shop.run("zypper-install", *names)

    def install_reach(self, tree, add):
        add("derived", files.KDUMP_SYSCONFIG, files.KDUMP_SYSCONFIG + ".rpmnew", files.KDUMP_SYSCONFIG + ".rpmsave")
        add("derived", "/var/log/dump", *self.units["kdump.service"])
        for path in (arguments.GRUB_DEFAULTS, arguments.KERNEL_CMDLINE):  # removing the package runs kdumptool
            if tree.is_file(path):
                add("derived", path)
        if tree.is_file(files.GRUB2_CONFIG):
            add("anew", files.GRUB2_CONFIG)

    # The capture image and its loading.

    def capture_reach(self, tree, change, releases, add):
        add("derived", IMAGE, KERNEL, CAPTURE + "/kernel-version", RULES, LOAD_NOTE)
        for folder in _core_dirs(tree, change):  # mkdumprd makes it
            if tree.stat(folder) is None:
                add("derived", folder)

    def look_image(self, look, release):
        look.commands("mkdumprd")
        paths = ["/boot/%s-%s" % (name, release) for name in KERNELS]
        paths += ["/usr/lib/modules/%s/%s" % (release, name) for name in KERNELS]
        if not any(look.tree.is_file(path) for path in paths):
            raise Refused(
                "the capture image cannot be built", "there is no kernel %s" % paths[0], "look at the host, plan again"
            )
        if not look.coming and not any(look.tree.exists(path) for path in ("/usr/bin/dracut", "/sbin/dracut")):
            raise Refused("the capture image cannot be built", "there is no /usr/bin/dracut", "install dracut")
        now = look.tree.stat(IMAGE)
        look.need(CAPTURE + "/x", now.st_size if now is not None else UNKNOWN_IMAGE)

    def build(self, doer, release):
        before = _state(doer.tree)
        self.check_load(doer)
        output = doer.shop.must("mkdumprd")
        after = _state(doer.tree)
        # It ends with 0 without an image where it may not write, and within a transactional update.
        if after is None or not after[0] or after == before:
            raise StepError("mkdumprd ended well, but it built no %s" % IMAGE, output)
        leads = (doer.tree.hash(KERNEL) or "")[len("link:") :]
        if release not in leads.split("/") and not leads.endswith("-" + release):
            raise StepError("mkdumprd built for %s, not for %s" % (leads or "no kernel", release), output)
        return output

    def look_load(self, look):
        look.commands("load.sh", "unload.sh")

    def check_load(self, doer):
        if variables(doer.tree, files.KDUMP_SYSCONFIG).get("KDUMP_FADUMP") in ("yes", "1", "true"):
            raise StepError("fadump is configured: the system's own initrds would be made anew")

    def load(self, tree, shop):
        output = shop.must("load.sh")
        note_load(tree)
        return output


def _state(tree):
    info = tree.stat(IMAGE)
    return None if info is None else (info.st_size, info.st_ino, info.st_mtime_ns)


def _core_dirs(tree, change):
    """Directories that KDUMP_SAVEDIR names, before and after the change."""
    try:
        values = [variables(tree, files.KDUMP_SYSCONFIG).get("KDUMP_SAVEDIR") or "/var/crash"]
    except StepError:
        values = ["/var/crash"]
    for step in change["steps"]:
        values += [pair[1] for pair in step.get("assignments", ()) if pair[0] == "KDUMP_SAVEDIR"]
    found = set()
    for value in values:
        path = value[len("file://") :] if value.startswith("file://") else value
        if re.match(r"(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+\Z", path):
            found.add(path)
    return sorted(found)


# Boot arguments.


def _there(tree):
    """(arguments of the first of GRUB's two variables, of the second)."""
    found = variables(tree, arguments.GRUB_DEFAULTS)
    for name in arguments.GRUB_VARIABLES:
        if found.get(name, "") is None:
            raise StepError("%s in %s is made by a shell" % (name, arguments.GRUB_DEFAULTS))
    return [arguments.words(found.get(name) or "") for name in arguments.GRUB_VARIABLES]


def _wrong(tree, ensure, remove):
    """None, or how what pbl keeps differs from what was asked for."""
    first, second = _there(tree)
    for name in [arguments.key(word) for word in ensure] + list(remove):
        wanted = [word for word in ensure if arguments.key(word) == name]
        found = [word for word in second if arguments.key(word) == name]
        if found != wanted or any(arguments.key(word) == name for word in first):
            have = " ".join([word for word in first + second if arguments.key(word) == name])
            return "%s says %s" % (arguments.GRUB_DEFAULTS, have or "nothing of " + name)
    return None


def _clear(tree, names):
    """Take off what the tools would leave: they see the second variable only, and one argument of a name in it."""
    first, second = [[arguments.key(word) for word in words] for words in _there(tree)]
    names = [name for name in names if name in first or second.count(name) > 1]
    if names:
        text = tree.read(arguments.GRUB_DEFAULTS).decode("utf-8", "surrogateescape")
        after = arguments.edit(arguments.GRUB_DEFAULTS, text, [], names)
        tree.write(arguments.GRUB_DEFAULTS, after.encode("utf-8", "surrogateescape"))


class _Written(Action):
    """What both writers have in common: the file that they edit, the menu that they make from it, and its undoing."""

    def reach(self, tree, family, step, add):
        add("config", arguments.GRUB_DEFAULTS)
        add("derived", arguments.GRUB_DEFAULTS + ".pblnew", files.GRUB2_CONFIG + ".new")
        add("anew", files.GRUB2_CONFIG)

    def look(self, look, family, step):
        look.commands("pbl")
        kind = variables(look.tree, LOADER).get("LOADER_TYPE")
        if kind not in LOADERS:
            why = "pbl would do nothing: LOADER_TYPE in %s is %s" % (LOADER, kind or "not set")
            raise Refused("the boot arguments cannot be set", why, "set the boot loader there (pbl --loader)")
        try:
            _there(look.tree)
        except StepError as error:
            raise Refused("the boot arguments cannot be set", error.why, "put that file in order, then plan again")
        for path in (arguments.GRUB_DEFAULTS, files.GRUB2_CONFIG):
            look.writable(path)
            now = look.tree.read(path)
            if now is None:
                raise Refused(
                    "the boot arguments cannot be set", "%s is not there" % path, "is this host's loader GRUB?"
                )
            look.need(path, 2 * len(now) + 4096)
        return True

    def menu(self, tree, output):
        info = tree.stat(files.GRUB2_CONFIG)
        if info is None or not info.st_size:
            raise StepError("%s is empty or gone after it was made anew" % files.GRUB2_CONFIG, output)
        return "changed", output

    def made_anew(self, undo, path):
        remove_quietly(temporary_name(undo.tree.real(path)))
        self.menu(undo.tree, undo.shop.must("pbl", "--config"))
        undo.note(path + " (made anew, because it has changed since)")


class Pbl(_Written):
    """Arguments that nobody but us sets. One name is one option for pbl, however many values it has."""

    members = ("ensure", "remove")

    def what(self, step):
        return "let pbl set boot arguments"

    def do(self, doer, family, step):
        words, names = [], []
        for name in step["remove"]:
            words += ["--del-option", name]
        for word in step["ensure"]:
            name = arguments.key(word)
            if name not in names:
                names.append(name)
                words += ["--add-option", " ".join(w for w in step["ensure"] if arguments.key(w) == name)]
        _clear(doer.tree, names + step["remove"])
        output = doer.shop.must("pbl", *(words + ["--config"]))
        why = _wrong(doer.tree, step["ensure"], step["remove"])
        if why:
            raise StepError("pbl ended well, but %s" % why, output)
        return self.menu(doer.tree, output)


class Commandline(_Written):
    """kdump's own updater writes crashkernel=, from KDUMP_CRASHKERNEL."""

    def what(self, step):
        return "let kdumptool set crashkernel="

    def look(self, look, family, step):
        look.commands("kdump-commandline")
        return _Written.look(self, look, family, step)

    def do(self, doer, family, step):
        _clear(doer.tree, ["crashkernel"])
        output = doer.shop.must("kdump-commandline")
        wanted = (variables(doer.tree, files.KDUMP_SYSCONFIG).get("KDUMP_CRASHKERNEL") or "auto").split()
        ensure = [word for word in wanted if word.startswith("crashkernel=")]
        if not ensure:  # its own calculation
            ensure = [word for word in _there(doer.tree)[1] if arguments.key(word) == "crashkernel"]
        why = _wrong(doer.tree, ensure, []) if ensure else "no crashkernel= was written"
        if why:
            raise StepError("kdumptool ended well, but %s" % why, output)
        return self.menu(doer.tree, output)
