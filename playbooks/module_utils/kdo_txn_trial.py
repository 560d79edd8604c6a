# SPDX-License-Identifier: Apache-2.0
"""New boot arguments for exactly one boot: an entry of ours in custom.cfg, chosen by grub-reboot right before a reboot.

The entry is made from the one that boots by default. The default itself stays as it is, so whatever happens to the
trial, the boot after it has the old arguments. What the entry needs of GRUB (it must be able to clear its own choice
while booting) is looked at first; where that cannot be told, there is no trial.
"""

import os
import re

try:
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils import kdo_txn_menu as grub
    from ansible.module_utils import kdo_txn_scope as scope
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_doc import Refused
    from ansible.module_utils.kdo_txn_fs import FileError, fsync_dir, write_whole
except ImportError:
    import kdo_txn_doc as doc
    import kdo_txn_menu as grub
    import kdo_txn_scope as scope
    from kdo_txn_cmd import CommandError
    from kdo_txn_doc import Refused
    from kdo_txn_fs import FileError, fsync_dir, write_whole

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


def step_of(change):
    """The step that tries arguments, or None."""
    return next((step for step in change["steps"] if step.get("name") == "grub-trial"), None)


def ident(change_id):
    return _PREFIX + change_id[:8]


def environment(tree):
    """``{name: value}`` of GRUB's environment block; raises FileError where it is not one that GRUB can write."""
    data = tree.read(ENVIRONMENT)
    if data is None:
        raise FileError("there is no %s (grub-editenv %s create makes one)" % (ENVIRONMENT, ENVIRONMENT))
    if len(data) != _SIZE or not data.startswith(_HEAD):
        raise FileError("%s is not an environment block" % ENVIRONMENT)
    rows = [row.partition("=") for row in data.decode("utf-8", "replace").split("\n")]
    return {name: value for name, equals, value in rows if equals and not name.startswith("#")}


def _place(tree):
    """None, or why GRUB cannot write where the environment block is."""
    best = None
    for row in (tree.read("/proc/self/mountinfo") or b"").decode("utf-8", "replace").split("\n"):
        fields = row.split()
        if len(fields) < 10 or "-" not in fields:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
        inside = point == "/" or ENVIRONMENT.startswith(point + "/")
        if inside and (best is None or len(point) >= len(best[0])):
            best = (point, fields[2], fields[fields.index("-") + 1])
    if best is None:
        return "it cannot be told on which filesystem %s is" % ENVIRONMENT
    point, device, kind = best
    if kind not in _WRITABLE:
        return "%s is on %s, which GRUB does not write" % (ENVIRONMENT, kind)
    link = tree.real("/sys/dev/block/" + device)
    real = os.path.realpath(link)
    if not os.path.isdir(real):
        return "the device %s below %s is not known" % (device, point)
    if "/virtual/block/" in real:
        name = tree.value(_inside(tree, real) + "/dm/uuid") or os.path.basename(real)
        return "%s is on %s (LVM, RAID, encryption or the like), which GRUB does not write" % (
            ENVIRONMENT,
            name.partition("-")[0][:40],
        )
    return None


def _inside(tree, real):
    root = os.path.realpath(tree.root)
    return real if root == "/" else real[len(root) :]


class Trial(object):
    """What would be written, or Refused with the reason. Reads only."""

    def __init__(self, tree, step, change_id):
        self.tree, self.step, self.change_id = tree, step, change_id
        try:
            self.text = self._make()
        except (grub.MenuError, FileError) as error:
            raise Refused("the new boot arguments cannot be tried for one boot", str(error), NO_TRIAL)

    def _make(self):
        data = self.tree.read(doc.GRUB_CONFIG)
        if data is None:
            raise FileError("there is no %s" % doc.GRUB_CONFIG)
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
            raise grub.MenuError("%s knows no choice for one boot (next_entry)" % doc.GRUB_CONFIG)
        reads = ("${config_directory}/custom.cfg", "$prefix/custom.cfg")
        if not any(menu.runs("source", path) for path in reads):
            raise grub.MenuError("%s does not read %s (41_custom)" % (doc.GRUB_CONFIG, doc.GRUB_CUSTOM))
        if any(command[0].value == "blscfg" for command in menu.all_commands()):
            raise grub.MenuError("%s takes its entries from elsewhere (blscfg)" % doc.GRUB_CONFIG)
        if self.tree.exists(doc.GRUB_CONFIG + ".sig") or "check_signatures=enforce" in text:
            raise grub.MenuError("GRUB reads only signed files here")
        why = _place(self.tree)
        if why:
            raise FileError(why)
        rest = without(self.tree.read(doc.GRUB_CUSTOM))[0]
        if rest is not None:
            custom = grub.Menu(rest.decode("utf-8", "surrogateescape"))
            if custom.settings("default") or custom.settings("next_entry"):
                raise grub.MenuError("%s chooses the entry itself" % doc.GRUB_CUSTOM)

    def _prove(self, made, entry):
        """What was made is read again: one entry, the same kernel, and exactly the wanted arguments."""
        again = grub.Menu(made).entries
        if len(again) != 1 or again[0].id != ident(self.change_id):
            raise grub.MenuError("the entry made from the default one does not read back")
        if grub.linux(again[0])[1].value != grub.linux(entry)[1].value:
            raise grub.MenuError("the entry made from the default one has another kernel")
        why = wrong(grub.arguments(again[0]), self.step)
        if why:
            raise grub.MenuError(why)

    def block(self):
        """The whole of custom.cfg as it would be."""
        now = self.tree.read(doc.GRUB_CUSTOM)
        rest, mtime = without(now)
        if rest is None:
            kind, mtime = "new", 0
        else:
            kind = "whole" if rest.endswith(b"\n") or not rest else "unended"
            mtime = self.tree.stat(doc.GRUB_CUSTOM).st_mtime_ns if mtime is None else mtime
        entry, default = self.text
        values = {"mark": self.change_id[:8], "kind": kind, "mtime": mtime, "ident": ident(self.change_id)}
        text = _TEXT % dict(values, entry=entry, default=default)
        return (rest or b"") + (b"\n" if kind == "unended" else b"") + text.encode("utf-8", "surrogateescape")


def wrong(there, step):
    """None, or how arguments differ from what the step wants: ours once each, nothing else under their keys."""
    wanted = {}
    for argument in step["ensure"]:
        wanted.setdefault(grub.key(argument), []).append(argument)
    for name in sorted(set(wanted) | {grub.key(word) for word in step["remove"]}):
        if [word for word in there if grub.key(word) == name] != wanted.get(name, []):
            return "the arguments are not as wanted (%s)" % name
    return None


# The block in custom.cfg.


def without(data):
    """(the file's bytes without our block, the time it had before); (None, …) where the file itself was ours."""
    if data is None:
        return None, None
    match = _BLOCK.search(data)
    if match is None:
        if _WORDS in data:
            raise FileError("our block in %s was edited: remove it by hand" % doc.GRUB_CUSTOM)
        return data, None
    before, after = data[: match.start()], data[match.end() :]
    if match.group(2) == b"unended" and before.endswith(b"\n") and not after:
        before = before[:-1]
    if match.group(2) == b"new" and not (before + after).strip():
        return None, None
    return before + after, int(match.group(3)) or None


def there(tree):
    """The mark of the block that is there, or None."""
    match = _BLOCK.search(tree.read(doc.GRUB_CUSTOM) or b"")
    return match.group(1).decode("ascii") if match else None


def clean(tree):
    """Take our block away, the rest of the file stays as it was. True if there was one."""
    now = tree.read(doc.GRUB_CUSTOM)
    rest, mtime = without(now)
    if rest == now:
        return False
    if rest is None:
        tree.remove(doc.GRUB_CUSTOM)
        return True
    info = tree.stat(doc.GRUB_CUSTOM)
    times = (mtime, mtime) if mtime else None
    write_whole(tree.real(doc.GRUB_CUSTOM), rest, info.st_mode & 0o7777, (info.st_uid, info.st_gid), times)
    fsync_dir(os.path.dirname(tree.real(doc.GRUB_CUSTOM)))
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


# One boot, and what may follow it.


def waiting(store):
    """The newest transaction, if it is a trial that was neither confirmed nor rolled back."""
    newest = store.newest("committed")
    return newest if newest is not None and step_of(newest.change) is not None else None


def arm_and_reboot(tree, shop, store):
    """Choose the entry and reboot, in one call on the host: no connection can break between the two."""
    tx = waiting(store)
    fix = "apply the plan again"
    if tx is None:
        raise Refused("there is nothing to try", "the newest transaction is not a trial", fix)
    if tx.last("commit")["boot_id"] != scope.boot_id(tree):
        raise Refused("there is nothing to try", "the trial was booted before", "kdo rollback, then apply again")
    mark = tx.change["id"][:8]
    if there(tree) != mark:
        raise Refused("there is nothing to try", "%s does not hold the entry" % doc.GRUB_CUSTOM, "kdo rollback")
    Trial(tree, step_of(tx.change), tx.change["id"])  # everything is still as it must be
    try:
        shop.must("grub-once", ident(tx.change["id"]))
        if environment(tree).get("next_entry") != ident(tx.change["id"]):
            raise CommandError("grub-once", "%s does not name the entry" % ENVIRONMENT)
        tx.append("armed", boot_id=scope.boot_id(tree))
        shop.must("reboot")
    except BaseException:
        disarm(tree, shop)
        raise
    return tx.name


def confirmable(tree, store, change):
    """Refused, unless the trial that is confirmed is the newest transaction and is what runs."""
    newest, fix = store.newest("committed"), "kdo rollback, then apply again"
    if newest is not None and newest.change["id"] == change["id"]:
        return
    if newest is None or newest.change["id"] != change["confirms"] or step_of(newest.change) is None:
        raise Refused("there is no trial to confirm", "the newest transaction is not that trial", fix)
    if newest.last("commit")["boot_id"] == scope.boot_id(tree):
        raise Refused("the trial cannot be confirmed", "it has not been booted", fix)
    if not runs(tree, step_of(newest.change)):
        raise Refused("the trial cannot be confirmed", "the running kernel does not have the arguments", fix)


def runs(tree, step):
    """Whether the running kernel has the arguments of the trial."""
    return wrong((tree.value("/proc/cmdline") or "").split(), step) is None
