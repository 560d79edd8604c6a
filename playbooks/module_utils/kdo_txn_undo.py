# SPDX-License-Identifier: Apache-2.0
"""Putting everything back as the picture says. Idempotent: killed anywhere, the next undo finishes it.

What fails is noted and the rest goes on, because a host with one thing out of place is better than one with many.
"""

import fnmatch
import os
import re
import stat

try:
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils import kdo_txn_scope as scope
    from ansible.module_utils import kdo_txn_trial as trial
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_expect import same_value
    from ansible.module_utils.kdo_txn_fs import remove_quietly, temporary_name
    from ansible.module_utils.kdo_txn_steps import regenerate_grub, unload
except ImportError:
    import kdo_txn_doc as doc
    import kdo_txn_scope as scope
    import kdo_txn_trial as trial
    from kdo_txn_cmd import CommandError
    from kdo_txn_expect import same_value
    from kdo_txn_fs import remove_quietly, temporary_name
    from kdo_txn_steps import regenerate_grub, unload


class Undo(object):
    """``leave``: paths somebody else owns by now. ``booting``: the unit runs us, the service will load afterwards."""

    def __init__(self, tree, shop, tx, leave=(), grub_anew=False, booting=False, forced=False):
        self.tree, self.shop, self.tx = tree, shop, tx
        self.leave, self.grub_anew, self.booting, self.forced = set(leave), grub_anew, booting, forced
        self.manifest = tx.manifest
        self.records = tx.records()
        self.problems, self.put_back = [], []
        steps = tx.change["steps"]
        started = [steps[record["index"]] for record in self.records if record["event"] == "step-start"]
        self.started = scope.operations({"steps": started})

    def run(self):
        reaches_loaded = bool({"kdump-reload", "kdump-unload", "package-install"} & set(self.started))
        if "package-install" in self.started:
            if reaches_loaded and self.manifest["loaded"] == "0":
                self._try("unload the capture kernel", self._unload)
            self._try("remove packages", self._packages)
        if "grub-trial" in self.started:
            self._try("take back the choice for the next boot", self._choice)
        self._files()
        if "grub-trial" in self.started and doc.GRUB_CUSTOM in self.leave:
            self._try("take the trial entry out of %s" % doc.GRUB_CUSTOM, self._entry)
        for path, value in sorted(self.manifest["knobs"].items()):
            self._try("restore %s" % path, self._knob, path, value)
        for unit, state in sorted(self.manifest["units"].items()):
            self._try("restore %s" % unit, self._unit, unit, state)
        if any("/etc/systemd/system/" in text for text in self.put_back) and self.shop.has("units-reload"):
            self._try("reload units", self.shop.run, "units-reload")
        if self.grub_anew:
            self._try("make %s anew" % doc.GRUB_CONFIG, self._grub)
        if reaches_loaded:
            self._try("restore the loaded capture kernel", self._loaded)
            self._files()  # loading touches files of its own
        return self.problems

    def _try(self, doing, function, *arguments):
        try:
            function(*arguments)
        except CommandError as error:
            output = error.output.split("\n")[-1] if error.output else ""
            self.problems.append("%s: %s%s" % (doing, error, " (%s)" % output[:200] if output else ""))
        except Exception as error:  # noqa: BLE001 - noted, and the rest goes on
            self.problems.append("%s: %s" % (doing, getattr(error, "why", None) or error))

    def _note(self, text):
        if text not in self.put_back:
            self.put_back.append(text)

    # Files.

    def _files(self):
        items = self.manifest["items"]
        for item in items:
            if item["path"] not in self.leave:
                self._try("restore %s" % item["path"], self._item, item)
        known = {item["path"] for item in items}
        for path in self.manifest["trees"]:
            self._try("clear %s" % path, self._tree, path, {name for name in known if self._was(name)})
        for pattern in self.manifest["links"]:
            self._try("clear %s" % pattern, self._links, pattern)
        for path in reversed(self.manifest["folders"]):
            self._try("remove %s" % path, self._folder, path)

    def _was(self, path):
        return any(item["path"] == path and item["kind"] != "absent" for item in self.manifest["items"])

    def _item(self, item):
        if self.tree.restore(item, self.tx.before):
            self._note(item["path"])

    def _tree(self, path, known):
        info = self.tree.stat(path)
        if info is None or path in self.leave or not stat.S_ISDIR(info.st_mode):
            return
        for entry in reversed(self.tree.walk(path, 100000) or ()):
            if entry in known:
                continue
            real = self.tree.real(entry)
            if stat.S_ISDIR(os.lstat(real).st_mode):
                os.rmdir(real)
            else:
                os.unlink(real)
            self._note(path)

    def _links(self, pattern):
        folder, _, name = pattern.rpartition("/")
        try:
            there = os.listdir(self.tree.real(folder))
        except OSError:
            return
        for entry in there:
            path = folder + "/" + entry
            if fnmatch.fnmatch(entry, name) and path not in self.manifest["links"][pattern]:
                if os.path.islink(self.tree.real(path)):
                    self.tree.remove(path)
                    self._note(path)

    def _folder(self, path):
        info = self.tree.stat(path)
        if info is not None and stat.S_ISDIR(info.st_mode) and not os.listdir(self.tree.real(path)):
            os.rmdir(self.tree.real(path))

    # Everything else.

    def _ours(self):
        """Packages that are new since the picture and that the journal names as brought by us."""
        before, now = self.manifest["packages"], scope.packages(self.tree)
        names = set()
        for record in self.records:
            if record["event"] == "packages":
                names.update(record["names"])
        gone = ("not-installed", None)
        new = [name for name in sorted(names) if before.get(name) != "installed" and now.get(name) not in gone]
        purge = [name for name in new if before.get(name) in gone]
        remove = [name for name in new if name not in purge and now.get(name) != "config-files"]
        return purge, remove

    def _packages(self):
        if not any(record["event"] == "packages" for record in self.records):
            return
        commit = any(record["event"] == "commit" for record in self.records)
        if not commit:
            self.shop.run("dpkg-configure")  # apt-get may have been cut off in the middle; purging copes with the rest
        purge, remove = self._ours()
        for command, names in (("apt-purge", purge), ("apt-remove", remove)):
            if not names:
                continue
            status, said, whole = self.shop.run("apt-purge-simulate", *names)
            going = {name.split(":")[0] for name in re.findall(r"^(?:Remv|Purg) (\S+)", whole, re.M)}
            if status != 0:
                raise CommandError(command, "apt-get does not see how", said)
            if going - set(names):
                raise CommandError(command, "it would also remove %s" % ", ".join(sorted(going - set(names))))
            self.shop.must(command, *names)
            self._note("packages: " + ", ".join(names))
        left = self._ours()
        if left[0] + left[1]:
            raise CommandError("apt-purge", "still there: %s" % ", ".join(left[0] + left[1]))

    def _knob(self, path, value):
        now = self.tree.value(path)
        if value is None or now is None or same_value(path, now, value):
            return
        commit = self.tx.last("commit")
        if commit is not None and not self.forced:
            ours = commit["knobs"].get(path)
            if ours is not None and not same_value(path, now, ours):
                return  # somebody gave it a value of their own since
        self.tree.set_value(path, value)
        if not same_value(path, self.tree.value(path), value):
            raise CommandError("knob", "the kernel did not take the old value")
        self._note(path)

    def _unit(self, unit, before):
        if before not in ("enabled", "disabled") or not self.shop.has("unit-state"):
            return
        now = self.shop.unit_state(unit)
        if now == before or now not in ("enabled", "disabled"):
            return
        self.shop.must("unit-enable" if before == "enabled" else "unit-disable", unit)
        self._note(unit)
        self._files()  # the SysV script's links come in two states, and none of them may have been there

    def _grub(self):
        remove_quietly(temporary_name(self.tree.real(doc.GRUB_CONFIG)))
        regenerate_grub(self.tree, self.shop)
        self._note(doc.GRUB_CONFIG + " (made anew, because it has changed since)")

    def _choice(self):
        """First of all: a power loss from here on boots the default."""
        if trial.disarm(self.tree, self.shop):
            self._note("the entry chosen for the next boot")

    def _entry(self):
        """Somebody has edited the file around our block since."""
        if trial.clean(self.tree):
            self._note(doc.GRUB_CUSTOM)

    def _unload(self):
        if scope.loaded(self.tree) != "1":
            return
        unload(self.tree, self.shop)
        self._note("capture kernel unloaded")

    def _loaded(self):
        before, now = self.manifest["loaded"], scope.loaded(self.tree)
        if before == "0":
            self._unload()
        elif before == "1":
            if now != "1" and self.booting and self.manifest["boot_id"] != scope.boot_id(self.tree):
                return  # kdump-tools.service comes after us, and refuses when something is loaded already
            self.shop.must("kdump-reload" if now == "1" else "kdump-load")
            if scope.loaded(self.tree) != "1":
                raise CommandError("kdump-load", "no capture kernel is loaded")
            self._note("capture kernel loaded again with the old configuration")
