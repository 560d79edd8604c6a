# SPDX-License-Identifier: Apache-2.0
"""GRUB with a generated menu: making it anew, and new boot arguments for exactly one boot.

A trial is an entry of ours in custom.cfg, chosen by grub-reboot right before a reboot, and made from the entry that boots
by default. The default itself stays as it is, so whatever happens to the trial, the boot after it has the old arguments.
What the entry needs of GRUB (it must be able to clear its own choice while booting) is looked at first; where that
cannot be told, there is no trial.
"""

import os
import re

try:
    from ansible.module_utils import kdo_txn_files as files
    from ansible.module_utils import kdo_txn_menu as grub
    from ansible.module_utils.kdo_txn_action import Action, StepError, Trial
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_fs import FileError, fsync_dir, remove_quietly, temporary_name, write_whole
except ImportError:
    import kdo_txn_files as files
    import kdo_txn_menu as grub
    from kdo_txn_action import Action, StepError, Trial
    from kdo_txn_cmd import CommandError
    from kdo_txn_files import Refused
    from kdo_txn_fs import FileError, fsync_dir, remove_quietly, temporary_name, write_whole

ENVIRONMENT = "/boot/grub/grubenv"
_HEAD = b"# GRUB Environment Block\n"
_SIZE = 1024
# GRUB writes blocks that a file has already; these keep a file's bytes in blocks of its own, at known places.
_WRITABLE = ("ext2", "ext3", "ext4", "xfs", "vfat")
_PREFIX = "kdump-orchestrator-trial-"
_WORDS = b"kdump-orchestrator trial"
_BLOCK = re.compile(
    rb"### BEGIN kdump-orchestrator trial ([0-9a-f]{8}) file=(new|whole|unended) mtime=([0-9]{1,20}) ###\n"
    rb".*?### END kdump-orchestrator trial \1 ###\n",
    re.S,
)
# load_env reads the block again from the disk: a GRUB that could not clear the choice would repeat it at every boot.
_TEXT = """### BEGIN kdump-orchestrator trial %(mark)s file=%(kind)s mtime=%(mtime)d ###
# Boot arguments that are tried once. Nothing boots this entry by itself; kdo takes it away again.
load_env next_entry
if [ "${next_entry}" = "%(ident)s" ]; then
  set next_entry=
  set default%(default)s
else
%(entry)sfi
### END kdump-orchestrator trial %(mark)s ###
"""
NO_TRIAL = "kdo apply --reboot --no-trial makes them the default without a trial"


def ident(change_id):
    return _PREFIX + change_id[:8]


def environment(tree):
    return environment_of(tree, ENVIRONMENT)


def environment_of(tree, path):
    """``{name: value}`` of GRUB's environment block; raises FileError where it is not one that GRUB can write."""
    data = tree.read(path)
    if data is None:
        raise FileError("there is no %s (grub-editenv %s create makes one)" % (path, path))
    if len(data) != _SIZE or not data.startswith(_HEAD):
        raise FileError("%s is not an environment block" % path)
    rows = [row.partition("=") for row in data.decode("utf-8", "replace").split("\n")]
    return {name: value for name, equals, value in rows if equals and not name.startswith("#")}


def place_problem(tree, path):
    """None, or why GRUB cannot write where the environment block is."""
    best = None
    for row in (tree.read("/proc/self/mountinfo") or b"").decode("utf-8", "replace").split("\n"):
        fields = row.split()
        if len(fields) < 10 or "-" not in fields:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
        inside = point == "/" or path.startswith(point + "/")
        if inside and (best is None or len(point) >= len(best[0])):
            best = (point, fields[2], fields[fields.index("-") + 1])
    if best is None:
        return "it cannot be told on which filesystem %s is" % path
    point, device, kind = best
    if kind not in _WRITABLE:
        return "%s is on %s, which GRUB does not write" % (path, kind)
    link = tree.real("/sys/dev/block/" + device)
    real = os.path.realpath(link)
    if not os.path.isdir(real):
        return "the device %s below %s is not known" % (device, point)
    if "/virtual/block/" in real:
        name = tree.value(_inside(tree, real) + "/dm/uuid") or os.path.basename(real)
        return "%s is on %s (LVM, RAID, encryption or the like), which GRUB does not write" % (
            path,
            name.partition("-")[0][:40],
        )
    return None


def _inside(tree, real):
    root = os.path.realpath(tree.root)
    return real if root == "/" else real[len(root) :]


class Made(object):
    """What would be written, or Refused with the reason. Reads only."""

    def __init__(self, tree, step, change_id):
        self.tree, self.step, self.change_id = tree, step, change_id
        try:
            self.text = self._make()
        except (grub.MenuError, FileError) as error:
            raise Refused("the new boot arguments cannot be tried for one boot", str(error), NO_TRIAL)

    def _make(self):
        data = self.tree.read(files.GRUB_CONFIG)
        if data is None:
            raise FileError("there is no %s" % files.GRUB_CONFIG)
        text = data.decode("utf-8", "surrogateescape")
        menu = grub.Menu(text)
        self._possible(menu, text)
        saved = environment(self.tree)
        if saved.get("prev_saved_entry"):
            raise FileError("an older choice for one boot is pending (%s: prev_saved_entry)" % ENVIRONMENT)
        if saved.get("next_entry") and not saved["next_entry"].startswith(_PREFIX):
            raise FileError("somebody has already chosen an entry for the next boot (%s: next_entry)" % ENVIRONMENT)
        entry = grub.default_entry(menu, saved)
        kernel = os.path.basename(grub.linux(entry)[1].value)
        if not self.tree.is_file("/boot/" + kernel):
            raise FileError("the kernel of the default entry is not one in /boot")
        name = ident(self.change_id)
        made = grub.compose(
            menu, entry, "kdump-orchestrator: boot arguments on trial", name, self.step["ensure"], self.step["remove"]
        )
        self._prove(made, entry)
        return made, grub.default_word(menu).raw[len("default") :]

    def _possible(self, menu, text):
        if not (menu.runs("save_env", "next_entry") and menu.runs("set", "default=${next_entry}")):
            raise grub.MenuError("%s knows no choice for one boot (next_entry)" % files.GRUB_CONFIG)
        reads = ("${config_directory}/custom.cfg", "$prefix/custom.cfg")
        if not any(menu.runs("source", path) for path in reads):
            raise grub.MenuError("%s does not read %s (41_custom)" % (files.GRUB_CONFIG, files.GRUB_CUSTOM))
        if any(command[0].value == "blscfg" for command in menu.all_commands()):
            raise grub.MenuError("%s takes its entries from elsewhere (blscfg)" % files.GRUB_CONFIG)
        if self.tree.exists(files.GRUB_CONFIG + ".sig") or "check_signatures=enforce" in text:
            raise grub.MenuError("GRUB reads only signed files here")
        why = place_problem(self.tree, ENVIRONMENT)
        if why:
            raise FileError(why)
        rest = without(self.tree.read(files.GRUB_CUSTOM))[0]
        if rest is not None:
            custom = grub.Menu(rest.decode("utf-8", "surrogateescape"))
            if custom.settings("default") or custom.settings("next_entry"):
                raise grub.MenuError("%s chooses the entry itself" % files.GRUB_CUSTOM)

    def _prove(self, made, entry):
        """What was made is read again: one entry, the same kernel, and exactly the wanted arguments."""
        again = grub.Menu(made).entries
        if len(again) != 1 or again[0].id != ident(self.change_id):
            raise grub.MenuError("the entry made from the default one does not read back")
        if grub.linux(again[0])[1].value != grub.linux(entry)[1].value:
            raise grub.MenuError("the entry made from the default one has another kernel")
        why = grub.wrong(grub.arguments(again[0]), self.step)
        if why:
            raise grub.MenuError(why)

    def block(self):
        """The whole of custom.cfg as it would be."""
        now = self.tree.read(files.GRUB_CUSTOM)
        rest, mtime = without(now)
        if rest is None:
            kind, mtime = "new", 0
        else:
            kind = "whole" if rest.endswith(b"\n") or not rest else "unended"
            mtime = self.tree.stat(files.GRUB_CUSTOM).st_mtime_ns if mtime is None else mtime
        entry, default = self.text
        values = {"mark": self.change_id[:8], "kind": kind, "mtime": mtime, "ident": ident(self.change_id)}
        text = _TEXT % dict(values, entry=entry, default=default)
        return (rest or b"") + (b"\n" if kind == "unended" else b"") + text.encode("utf-8", "surrogateescape")


# The block in custom.cfg.


def without(data):
    """(the file's bytes without our block, the time it had before); (None, …) where the file itself was ours."""
    if data is None:
        return None, None
    match = _BLOCK.search(data)
    if match is None:
        if _WORDS in data:
            raise FileError("our block in %s was edited: remove it by hand" % files.GRUB_CUSTOM)
        return data, None
    before, after = data[: match.start()], data[match.end() :]
    if match.group(2) == b"unended" and before.endswith(b"\n") and not after:
        before = before[:-1]
    if match.group(2) == b"new" and not (before + after).strip():
        return None, None
    return before + after, int(match.group(3)) or None


def there(tree):
    """The mark of the block that is there, or None."""
    match = _BLOCK.search(tree.read(files.GRUB_CUSTOM) or b"")
    return match.group(1).decode("ascii") if match else None


def clean(tree):
    """Take our block away, the rest of the file stays as it was. True if there was one."""
    now = tree.read(files.GRUB_CUSTOM)
    rest, mtime = without(now)
    if rest == now:
        return False
    if rest is None:
        tree.remove(files.GRUB_CUSTOM)
        return True
    info = tree.stat(files.GRUB_CUSTOM)
    times = (mtime, mtime) if mtime else None
    write_whole(tree.real(files.GRUB_CUSTOM), rest, info.st_mode & 0o7777, (info.st_uid, info.st_gid), times)
    fsync_dir(os.path.dirname(tree.real(files.GRUB_CUSTOM)))
    return True


def disarm(tree, shop):
    """No choice of ours for the next boot. Somebody else's stays. True if there was one."""
    try:
        chosen = environment(tree).get("next_entry") or ""
    except FileError:
        return False  # GRUB finds no choice in it either
    if not chosen.startswith(_PREFIX):
        return False
    shop.must("grub-next-none")
    if environment(tree).get("next_entry"):
        raise CommandError("grub-next-none", "%s still names an entry for the next boot" % ENVIRONMENT)
    return True


class Regenerate(Action):
    """grub.cfg made anew from its inputs; arguments that were on trial are the default then."""

    def __init__(self, name, config=files.GRUB_CONFIG, check="grub-check", tries=True):
        Action.__init__(self, name)
        self.config, self.check_command, self.tries = config, check, tries

    def reach(self, tree, family, step, add):
        if self.tries:
            add("derived", files.GRUB_CUSTOM)
        add("anew", self.config)
        add("derived", self.config + ".new")

    def look(self, look, family, step):
        look.commands(self.name)
        look.writable(self.config)
        now = look.tree.read(self.config)
        if now is None:
            raise Refused(
                "the boot menu cannot be made anew",
                "%s is not there" % self.config,
                "this host does not seem to boot with GRUB",
            )
        if not self.tries and b"### BEGIN /etc/grub.d/" not in now:
            why = "%s was not made by grub2-mkconfig: what stands in it would be lost" % self.config
            raise Refused("the boot menu cannot be made anew", why, "add the arguments by hand")
        look.need(self.config, 2 * len(now))
        if self.tries and there(look.tree) is not None:  # a trial's entry goes when its arguments become the default
            look.commands("grub-next-none")
            look.writable(files.GRUB_CUSTOM)
        return True

    def do(self, doer, family, step):
        output = self.regenerate(doer.tree, doer.shop)
        if self.tries:
            disarm(doer.tree, doer.shop)
            clean(doer.tree)
        return "changed", output

    def made_anew(self, undo, path):
        remove_quietly(temporary_name(undo.tree.real(path)))
        self.regenerate(undo.tree, undo.shop)
        undo.note(path + " (made anew, because it has changed since)")

    def regenerate(self, tree, shop):
        output = shop.must(self.name)
        info = tree.stat(self.config)
        if info is None or not info.st_size:
            raise StepError("%s is empty or gone after it was made anew" % self.config, output)
        if shop.has(self.check_command):
            status, said, _ = shop.run(self.check_command)
            if status != 0:
                raise StepError("grub-script-check does not accept the new %s" % self.config, said)
        return output


class Try(Trial):
    """The entry, and nothing that boots it: it is chosen right before the reboot (kdo_txn.py reboot-once)."""

    def what(self, step):
        return "make a boot entry for one trial"

    def reach(self, tree, family, step, add):
        add("derived", files.GRUB_CUSTOM)

    def look(self, look, family, step):
        look.commands("grub-check-custom", "grub-once", "grub-next-none", "reboot")
        look.writable(files.GRUB_CUSTOM)
        look.need(files.GRUB_CUSTOM, len(Made(look.tree, step, look.change["id"]).block()))
        return True

    def do(self, doer, family, step):
        tree, change_id = doer.tree, doer.tx.change["id"]
        # A package that was installed has made the menu anew: the default stays what it was, so that goes back.
        for item in doer.tx.manifest["items"]:
            if item["path"] == files.GRUB_CONFIG:
                tree.restore(item, doer.tx.before)
        menu = tree.stat(files.GRUB_CONFIG).st_mode & 0o777
        mode = None if tree.is_file(files.GRUB_CUSTOM) else 0o600 | menu & 0o044  # no more open than the menu
        tree.write(files.GRUB_CUSTOM, Made(tree, step, change_id).block(), mode)
        status, output, _ = doer.shop.run("grub-check-custom")
        if status != 0:
            raise StepError("grub-script-check does not accept the new %s" % files.GRUB_CUSTOM, output)
        if there(tree) != change_id[:8]:
            raise StepError("%s does not hold the entry" % files.GRUB_CUSTOM, output)
        return "changed", output

    def undo_first(self, undo, step):
        """First of all: a power loss from here on boots the default."""
        if disarm(undo.tree, undo.shop):
            undo.note("the entry chosen for the next boot")

    def undo_after(self, undo, step):
        """Somebody may have edited the file around our block since."""
        if files.GRUB_CUSTOM in undo.leave and clean(undo.tree):
            undo.note(files.GRUB_CUSTOM)

    def there(self, tree):
        return there(tree)

    def possible(self, tree, shop, step, change_id):
        Made(tree, step, change_id)

    def arm(self, tree, shop, change_id):
        shop.must("grub-once", ident(change_id))
        if environment(tree).get("next_entry") != ident(change_id):
            raise CommandError("grub-once", "%s does not name the entry" % ENVIRONMENT)

    def disarm(self, tree, shop):
        return disarm(tree, shop)

    def clean(self, tree):
        return clean(tree)
