# SPDX-License-Identifier: Apache-2.0
"""Putting everything back as the picture says. Idempotent: killed anywhere, the next undo finishes it.

What fails is noted and the rest goes on, because a host with one thing out of place is better than one with many.
"""

import fnmatch
import os
import stat

try:
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_expect import same_value
    from ansible.module_utils.kdo_txn_host import boot_id, loaded
except ImportError:
    import kdo_txn_kit as kit
    from kdo_txn_cmd import CommandError
    from kdo_txn_expect import same_value
    from kdo_txn_host import boot_id, loaded


def grown(tree, manifest, path):
    """What there is below a directory now and was not when the picture was taken, the deepest first."""
    info = tree.stat(path)
    if info is None or not stat.S_ISDIR(info.st_mode):
        return []
    known = {item["path"] for item in manifest["items"] if item["kind"] != "absent"}
    return [entry for entry in reversed(tree.walk(path, 100000) or ()) if entry not in known]


def strays(tree, manifest, pattern):
    """Links that a SysV script's pattern matches now and that were not there when the picture was taken."""
    folder, _, name = pattern.rpartition("/")
    try:
        there = fnmatch.filter(sorted(os.listdir(tree.real(folder))), name)
    except OSError:
        return []
    found = [folder + "/" + entry for entry in there]
    return [path for path in found if path not in manifest["links"][pattern] and os.path.islink(tree.real(path))]


class Undo(object):
    """``leave``: paths somebody else owns by now. ``booting``: the unit runs us, the service will load afterwards."""

    def __init__(self, tree, shop, tx, leave=(), anew=(), booting=False, forced=False):
        self.tree, self.shop, self.tx = tree, shop, tx
        self.leave, self.anew, self.booting, self.forced = set(leave), anew, booting, forced
        self.manifest = tx.manifest
        self.records = tx.records()
        self.problems, self.put_back = [], []
        self.family = kit.family_of(tx.change)
        steps = tx.change["steps"]
        started = [steps[record["index"]] for record in self.records if record["event"] == "step-start"]
        self.actions = kit.actions(started)
        self.installs = any(step["op"] == "package-install" for step in started)

    def run(self):
        reaches_loaded = self.installs or any(action.loads for action, _ in self.actions)
        if self.installs:
            if self.manifest["loaded"] == "0":
                self._try("unload the capture kernel", self._unload)
            if self.brought():
                self._try("remove packages", self.family.uninstall, self)
        for action, step in self.actions:
            self._try("begin to take back %s" % action.name, action.undo_first, self, step)
        self._files()
        for action, step in self.actions:
            self._try("take back %s" % action.name, action.undo_after, self, step)
        for path, value in sorted(self.manifest["knobs"].items()):
            self._try("restore %s" % path, self._knob, path, value)
        for unit, state in sorted(self.manifest["units"].items()):
            self._try("restore %s" % unit, self._unit, unit, state)
        if any("/etc/systemd/system/" in text for text in self.put_back) and self.shop.has("units-reload"):
            self._try("reload units", self.shop.run, "units-reload")
        for path in self.anew:
            self._try("make %s anew" % path, kit.make_anew, self, path)
        if reaches_loaded:
            self._try("restore the loaded capture kernel", self._loaded)
            self._files()  # loading touches files of its own
        return self.problems

    def brought(self):
        """Names of packages that the journal says we were about to bring."""
        names = set()
        for record in self.records:
            if record["event"] == "packages":
                names.update(record["names"])
        return sorted(names)

    def _try(self, doing, function, *arguments):
        try:
            function(*arguments)
        except CommandError as error:
            output = error.output.split("\n")[-1] if error.output else ""
            self.problems.append("%s: %s%s" % (doing, error, " (%s)" % output[:200] if output else ""))
        except Exception as error:  # noqa: BLE001 - noted, and the rest goes on
            self.problems.append("%s: %s" % (doing, getattr(error, "why", None) or error))

    def note(self, text):
        if text not in self.put_back:
            self.put_back.append(text)

    # Files.

    def _files(self):
        items = self.manifest["items"]
        for item in items:
            if item["path"] not in self.leave:
                self._try("restore %s" % item["path"], self._item, item)
        for path in self.manifest["trees"]:
            self._try("clear %s" % path, self._tree, path)
        for pattern in self.manifest["links"]:
            self._try("clear %s" % pattern, self._links, pattern)
        for path in reversed(self.manifest["folders"]):
            self._try("remove %s" % path, self._folder, path)

    def _item(self, item):
        if self.tree.restore(item, self.tx.before):
            self.note(item["path"])

    def _tree(self, path):
        if path in self.leave:
            return
        for entry in grown(self.tree, self.manifest, path):
            real = self.tree.real(entry)
            if stat.S_ISDIR(os.lstat(real).st_mode):
                os.rmdir(real)
            else:
                os.unlink(real)
            self.note(path)

    def _links(self, pattern):
        for path in strays(self.tree, self.manifest, pattern):
            self.tree.remove(path)
            self.note(path)

    def _folder(self, path):
        info = self.tree.stat(path)
        if info is not None and stat.S_ISDIR(info.st_mode) and not os.listdir(self.tree.real(path)):
            os.rmdir(self.tree.real(path))

    # Everything else.

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
        self.note(path)

    def _unit(self, unit, before):
        if before not in ("enabled", "disabled") or not self.shop.has("unit-state"):
            return
        now = self.shop.unit_state(unit)
        if now == before or now not in ("enabled", "disabled"):
            return
        self.shop.must("unit-enable" if before == "enabled" else "unit-disable", unit)
        self.note(unit)
        self._files()  # the SysV script's links come in two states, and none of them may have been there

    def _unload(self):
        if loaded(self.tree) != "1":
            return
        kit.unload(self.family, self.tree, self.shop)
        self.note("capture kernel unloaded")

    def _loaded(self):
        before, now = self.manifest["loaded"], loaded(self.tree)
        if before == "0":
            self._unload()
        elif before == "1":
            if now != "1" and self.booting and self.manifest["boot_id"] != boot_id(self.tree):
                return  # the family's service comes after us, and refuses when something is loaded already
            self.family.load(self.tree, self.shop)
            if loaded(self.tree) != "1":
                raise CommandError("load", "no capture kernel is loaded")
            self.note("capture kernel loaded again with the old configuration")
