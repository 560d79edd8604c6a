# SPDX-License-Identifier: Apache-2.0
"""Loader entries: new boot arguments for exactly one boot, and what makes them the default.

A trial is one more entry, made from the one that boots by default, and nothing boots it until it is chosen right before a
reboot: by systemd-boot's one-shot variable, which the boot loader takes away before it starts the kernel, or by GRUB's
next_entry. An entry of ours must never come first by itself, so there is no trial where that cannot be told.
"""

import json
import os
import re

try:
    from ansible.module_utils import kdo_arguments as arguments
    from ansible.module_utils import kdo_txn_menu as menu
    from ansible.module_utils.kdo_edit import EditError
    from ansible.module_utils.kdo_txn_action import Action, StepError, Trial
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_files import GRUB2_CONFIG, Refused
    from ansible.module_utils.kdo_txn_fs import FileError
    from ansible.module_utils.kdo_txn_grub import NO_TRIAL, environment_of, place_problem
except ImportError:
    import kdo_arguments as arguments
    import kdo_txn_menu as menu
    from kdo_edit import EditError
    from kdo_txn_action import Action, StepError, Trial
    from kdo_txn_cmd import CommandError
    from kdo_txn_files import GRUB2_CONFIG, Refused
    from kdo_txn_fs import FileError
    from kdo_txn_grub import NO_TRIAL, environment_of, place_problem

PREFIX = "kdump-orchestrator-trial-"
TITLE = "kdump-orchestrator: boot arguments on trial"
VARIABLE = "/sys/firmware/efi/efivars/%s-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
ONE_SHOT = "LoaderEntryOneShot"
FOLDERS = ("/boot/efi/loader/entries", "/efi/loader/entries", "/boot/loader/entries")
BLS_FOLDER = "/boot/loader/entries"
ENVIRONMENT = "/boot/grub2/grubenv"
_MARK = re.compile(re.escape(PREFIX) + r"([0-9a-f]{8})\.conf\Z")
_VARIABLES = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")


def _no(why):
    return Refused("the new boot arguments cannot be tried for one boot", why, NO_TRIAL)


def ident(change_id):
    return PREFIX + change_id[:8]


def folder_of(tree, folders=FOLDERS):
    """The directory with entries, or None."""
    return next((folder for folder in folders if tree.stat(folder) is not None), None)


def names(tree, folder):
    try:
        return sorted(name for name in os.listdir(tree.real(folder)) if name.endswith(".conf"))
    except OSError:
        return []


def trial_paths(tree):
    """Paths of our trial entries, wherever entries are."""
    found = []
    for folder in FOLDERS:
        found += [folder + "/" + name for name in names(tree, folder) if _MARK.match(name)]
    return found


def fields(text):
    """``{key: value}``, the last of each; options lines joined."""
    found = {}
    for row in text.split("\n"):
        name, _, value = row.strip().replace("\t", " ").partition(" ")
        if name and not name.startswith("#"):
            value = value.strip()
            found[name] = found[name] + " " + value if name == "options" and name in found else value
    return found


def options(tree):
    """The arguments of every entry that is not a trial, and of zipl's sections."""
    found = []
    for folder in FOLDERS:
        for name in names(tree, folder):
            if not _MARK.match(name):
                data = tree.read(folder + "/" + name) or b""
                found.append(fields(data.decode("utf-8", "replace")).get("options", "").split())
    zipl = tree.read(arguments.ZIPL) or b""
    return found + ([zipl.decode("utf-8", "replace").split("\n")] if zipl else [])


def made(path, text, step, options=None):
    """The text of a trial entry, from that of the default one. ``options``: with variables replaced."""
    rows, done = [], False
    for row in text.split("\n"):
        name = row.strip().replace("\t", " ").partition(" ")[0]
        if name == "title":
            rows.append("title " + TITLE)
        elif name == "options" and options is not None:
            if not done:
                rows.append("options " + options)
            done = True
        elif name not in ("sort-key", "id"):  # without a sort-key it comes after all that have one
            rows.append(row)
    after = arguments.edit(path, "\n".join(rows), step["ensure"], step["remove"])
    wrong = menu.wrong(arguments.words(fields(after).get("options", "")), step)
    if wrong:
        raise EditError(wrong)
    if fields(after).get("linux") != fields(text).get("linux"):
        raise EditError("the entry made from the default one has another kernel")
    return after


class LoaderTrial(Trial):
    """What the trials have in common."""

    def what(self, step):
        return "make a boot entry for one trial"

    def folder(self, tree):
        raise NotImplementedError

    def text(self, tree, shop, step, change_id):
        """(path, text) of the entry as it would be; Refused with the reason where there is none."""
        raise NotImplementedError

    def reach(self, tree, family, step, add):
        folder = self.folder(tree)
        if folder is not None:
            add("derived", "%s/%s.conf" % (folder, ident(add.change["id"])), *trial_paths(tree))

    def possible(self, tree, shop, step, change_id):
        self.text(tree, shop, step, change_id)

    def look(self, look, family, step):
        look.commands("reboot")
        path, text = self.text(look.tree, look.shop, step, look.change["id"])
        look.writable(path)
        look.need(path, len(text))
        return True

    def do(self, doer, family, step):
        self.clean(doer.tree)
        path, text = self.text(doer.tree, doer.shop, step, doer.tx.change["id"])
        doer.tree.write(path, text.encode("utf-8", "surrogateescape"), 0o644)
        why = self.first(doer.tree, doer.shop, doer.tx.change["id"])
        if why:
            raise StepError(why)
        return "changed", ""

    def first(self, tree, shop, change_id):
        """None, or why our entry may boot without being chosen."""

    def undo_first(self, undo, step):
        if self.disarm(undo.tree, undo.shop):
            undo.note("the entry chosen for the next boot")

    def there(self, tree):
        found = [_MARK.match(os.path.basename(path)).group(1) for path in trial_paths(tree)]
        return found[0] if len(found) == 1 else None

    def clean(self, tree):
        found = trial_paths(tree)
        for path in found:
            tree.remove(path)
        return bool(found)

    def _make(self, tree, path, name, step, expand=None):
        data = tree.read(path)
        if data is None:
            raise _no("the default entry %s is not there" % path)
        text = data.decode("utf-8", "surrogateescape")
        try:
            new = "%s/%s.conf" % (os.path.dirname(path), name)
            return new, made(new, text, step, expand(fields(text).get("options", "")) if expand else None)
        except (EditError, FileError) as error:
            raise _no(str(error))


def chosen_once(tree):
    """What systemd-boot will boot once, or "" if nothing was chosen."""
    data = b""
    try:
        with open(tree.real(VARIABLE % ONE_SHOT), "rb") as stream:
            data = stream.read(4096)
    except OSError:
        pass
    return data[4:].decode("utf-16-le", "replace").split("\0")[0]


class SystemdBoot(LoaderTrial):
    def folder(self, tree):
        return folder_of(tree)

    def look(self, look, family, step):
        look.commands("bootctl-list", "bootctl-once")
        return LoaderTrial.look(self, look, family, step)

    def text(self, tree, shop, step, change_id):
        if tree.stat("/sys/firmware/efi/efivars") is None:
            raise _no("the firmware's variables cannot be reached")
        once = chosen_once(tree)
        if once and not once.startswith(PREFIX):
            raise _no("somebody has already chosen an entry for the next boot (%s)" % ONE_SHOT)
        path = default_entry(tree, shop)
        if os.path.basename(path).startswith(PREFIX):
            raise _no("the entry of an older trial boots by default: kdo rollback takes it away")
        return self._make(tree, path, ident(change_id), step)

    def first(self, tree, shop, change_id):
        found = default_entry(tree, shop)
        if os.path.basename(found).startswith(PREFIX):
            return "the entry of the trial would boot without being chosen"
        return None

    def arm(self, tree, shop, change_id):
        shop.must("bootctl-once", ident(change_id) + ".conf")
        if not chosen_once(tree).startswith(ident(change_id)):
            raise CommandError("bootctl-once", "the firmware does not name the entry")

    def disarm(self, tree, shop):
        if not chosen_once(tree).startswith(PREFIX):
            return False
        shop.must("bootctl-once", "")
        if chosen_once(tree):
            raise CommandError("bootctl-once", "the firmware still names an entry for the next boot")
        return True


def default_entry(tree, shop):
    """Path of the entry that the boot loader boots when nothing is chosen, by its own tool."""
    status, said, whole = shop.run("bootctl-list")
    try:
        listed = json.loads(whole[whole.index("[") :]) if status == 0 else []
        found = [entry for entry in listed if entry.get("isDefault")]
        path = found[0]["path"] if len(found) == 1 and found[0].get("type") == "type1" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        path = None
    if not isinstance(path, str) or not arguments.ENTRY.match(path):
        raise _no("bootctl names no entry of type 1 that boots by default")
    return path


class Bls(LoaderTrial):
    def folder(self, tree):
        return folder_of(tree, (BLS_FOLDER,))

    def look(self, look, family, step):
        look.commands("grub2-once", "grub2-next-none")
        return LoaderTrial.look(self, look, family, step)

    def text(self, tree, shop, step, change_id):
        config = (tree.read(GRUB2_CONFIG) or b"").decode("utf-8", "replace")
        if "save_env next_entry" not in config or "blscfg" not in config:
            raise _no("%s knows no choice for one boot (next_entry), or reads no entries" % GRUB2_CONFIG)
        saved = self._environment(tree)
        if saved.get("next_entry") and not saved["next_entry"].startswith(PREFIX):
            raise _no("somebody has already chosen an entry for the next boot (next_entry)")
        why = place_problem(tree, ENVIRONMENT)
        if why:
            raise _no(why)
        default = saved.get("saved_entry", "")
        path = "%s/%s.conf" % (BLS_FOLDER, default)
        if "${saved_entry}" not in config or not arguments.ENTRY.match(path) or not tree.is_file(path):
            raise _no("no entry is named as the default (saved_entry), so another entry could take its place")

        def expand(options):
            unknown = [name for name in _VARIABLES.findall(options) if name not in saved and name != "tuned_params"]
            if unknown:
                raise EditError("the default entry takes arguments from $%s, which is not known" % unknown[0])
            return _VARIABLES.sub(lambda match: saved.get(match.group(1), ""), options).strip()

        return self._make(tree, path, ident(change_id), step, expand)

    def _environment(self, tree):
        try:
            return environment_of(tree, ENVIRONMENT)
        except FileError as error:
            raise _no(str(error))

    def arm(self, tree, shop, change_id):
        shop.must("grub2-once", "next_entry=" + ident(change_id))
        if self._environment(tree).get("next_entry") != ident(change_id):
            raise CommandError("grub2-once", "%s does not name the entry" % ENVIRONMENT)

    def disarm(self, tree, shop):
        try:
            chosen = environment_of(tree, ENVIRONMENT).get("next_entry") or ""
        except FileError:
            return False
        if not chosen.startswith(PREFIX):
            return False
        shop.must("grub2-next-none")
        if environment_of(tree, ENVIRONMENT).get("next_entry"):
            raise CommandError("grub2-next-none", "%s still names an entry for the next boot" % ENVIRONMENT)
        return True


class Settle(Action):
    """The entries were changed: what was tried goes, and the boot loader's own tool must still find a default."""

    def __init__(self, name, trials):
        Action.__init__(self, name)
        self.trials = trials

    def reach(self, tree, family, step, add):
        add("derived", *trial_paths(tree))

    def look(self, look, family, step):
        return any(step["op"] == "arguments" for step in look.change["steps"]) or bool(trial_paths(look.tree))

    def do(self, doer, family, step):
        for trial in self.trials:
            trial.disarm(doer.tree, doer.shop)
            trial.clean(doer.tree)
        if doer.tree.stat("/sys/firmware/efi/efivars") is not None and doer.shop.has("bootctl-list"):
            status, output, _ = doer.shop.run("bootctl-list")
            return "changed", output if status == 0 else ""
        return "changed", ""


class RunZipl(Action):
    """zipl writes the boot record from what was changed; the old one is put back by running it again."""

    def look(self, look, family, step):
        look.commands("zipl")
        return True

    def do(self, doer, family, step):
        return "changed", doer.shop.must("zipl")

    def undo_after(self, undo, step):
        undo.shop.must("zipl")
        undo.note("boot record written anew")
