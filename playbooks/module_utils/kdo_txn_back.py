# SPDX-License-Identifier: Apache-2.0
"""Rolling back a committed transaction. A confirmed trial is two of them, which go back together, the newer one first.

The newer one's ``rollback-start`` carries what is to become of the older one, and the older one is begun before the
newer one ends: whatever kills us in between, the journal still says that both go back.
"""

import os
import re

try:
    from ansible.module_utils import kdo_txn_boot as boot
    from ansible.module_utils import kdo_txn_expect as expectations
    from ansible.module_utils import kdo_txn_loader as loader
    from ansible.module_utils import kdo_txn_trial as trial
    from ansible.module_utils.kdo_txn_files import GRUB2_CONFIG, GRUB_CONFIG, Refused
    from ansible.module_utils.kdo_txn_fs import remove_quietly, temporary_name
    from ansible.module_utils.kdo_txn_host import boot_id
    from ansible.module_utils.kdo_txn_undo import Undo, grown, strays
except ImportError:
    import kdo_txn_boot as boot
    import kdo_txn_expect as expectations
    import kdo_txn_loader as loader
    import kdo_txn_trial as trial
    from kdo_txn_files import GRUB2_CONFIG, GRUB_CONFIG, Refused
    from kdo_txn_fs import remove_quietly, temporary_name
    from kdo_txn_host import boot_id
    from kdo_txn_undo import Undo, grown, strays


def _after_restore(item):
    """What :meth:`Tree.hash` will say of a path once the item is restored."""
    if item["kind"] == "link":
        return "link:" + item["target"]
    return {"absent": None, "dir": "dir"}.get(item["kind"], item.get("sha256"))


class RollBack(object):
    """The part of the engine that takes back what was committed."""

    def choose(self, tx, force, before=None):
        """What of a committed transaction goes back: ({"leave", "anew", "force"}, [changed configuration]).

        ``before``: paths that an earlier part of the same roll-back restores, with what will be there then.
        """
        after, leave, changed, anew = tx.last("commit")["after"], [], [], []
        for item in tx.manifest["items"]:
            path = item["path"]
            if item["group"] == "later":
                continue
            if before is not None and path in before:
                if before[path] == after.get(path):
                    continue
            elif self.tree.hash(path) == after.get(path) or self.tree.same(item):
                continue
            if item["group"] == "config":
                changed.append(path)
            elif item["group"] == "anew":
                leave.append(path)  # newer kernels may be in it: an old menu could name ones that are gone
                anew.append(path)
            else:
                leave.append(path)
        return {"leave": leave, "anew": anew, "force": bool(force)}, changed

    def _tried(self, tx):
        """The trial that a transaction confirmed, if it is still there to be rolled back."""
        wanted = tx.change.get("confirms")
        found = [other for other in self.store.all() if other.name != tx.name and other.state() == "committed"]
        return found[-1] if wanted and found and found[-1].change["id"] == wanted else None

    def _roll_back(self, tx, choice):
        undo = Undo(self.tree, self.shop, tx, choice["leave"], choice["anew"], self.booting, choice["force"])
        problems = undo.run()
        if problems:
            tx.append("undo-incomplete", problems=problems)
            return "undo-incomplete", problems, {"put_back": undo.put_back, "reboot": False}
        rebooted = tx.last("commit")["boot_id"] != boot_id(self.tree)
        reboot = choice["arguments"] != self._arguments() and rebooted
        tried = trial.step_of(tx.change)
        if tried is not None:
            reboot = rebooted and trial.runs(self.tree, tried)
        other = self._other(choice)
        if other is not None and other.state() == "committed":
            other.append("rollback-start", **choice["tried"]["choice"])
        tx.append("rolled-back", put_back=undo.put_back)
        if other is None:
            self._close(tx)
        elif boot.WANTS in tx.manifest.get("wants", []):  # the other one's end has to remove what we made
            other.manifest["wants"] = tx.manifest["wants"]
            other.write_json("manifest.json", other.manifest)
        tx.drop_images()
        return "rolled-back", [], {"put_back": undo.put_back, "reboot": bool(reboot)}

    def _other(self, choice):
        name = choice["tried"]["transaction"] if choice.get("tried") else None
        return next((tx for tx in self.store.all() if name is not None and tx.name == name), None)

    def _arguments(self):
        """What the boot menu says, so that it can be seen whether the next boot differs."""
        found = []
        for path in (GRUB_CONFIG, GRUB2_CONFIG):
            data = self.tree.read(path) or b""
            found += [words for _, words in expectations.kernel_lines(data.decode("utf-8", "replace"))]
        return found + loader.options(self.tree)

    def roll_back(self, force, check, result):
        tx = self.store.newest("committed")
        if tx is None:
            result.update(state="nothing")
            return
        result["transaction"] = tx.name
        choice, changed = self.choose(tx, force)
        choice["arguments"] = self._arguments()
        tried, keep = self._tried(tx), [(tx, path) for path in changed]
        if tried is not None:
            restored = [item for item in tx.manifest["items"] if item["path"] not in choice["leave"]]
            older, more = self.choose(tried, force, {item["path"]: _after_restore(item) for item in restored})
            older["arguments"] = choice["arguments"]
            choice["tried"] = {"transaction": tried.name, "choice": older}
            keep += [(tried, path) for path in more if path not in changed]
        if keep and not force:
            why = "changed since the transaction: " + ", ".join(path for _, path in keep)
            raise Refused(
                "the transaction cannot be rolled back",
                why,
                "look at what was changed; force puts the old content back over it",
            )
        if check:
            paths = self._would(tx, choice)
            paths += [path for path in self._would(tried, older) if path not in paths] if tried is not None else []
            result.update(state="check", changed=True, put_back=paths)
            return
        self.signals.hold += 1
        try:
            for owner, path in keep:
                self._keep(owner, path)
            self._arm(tx)
            tx.append("rollback-start", **choice)
            result["state"], problems, more = self._roll_back(tx, choice)
            if tried is not None and result["state"] == "rolled-back":
                result["state"], problems, second = self._roll_back(tried, tried.last("rollback-start"))
                second["put_back"] = more["put_back"] + [x for x in second["put_back"] if x not in more["put_back"]]
                more = dict(second, reboot=more["reboot"] or second["reboot"])
        finally:
            self.signals.hold -= 1
        result.update(more)
        result["changed"] = True
        if problems:
            fix = "put right what is named here, then roll back again: it finishes this first"
            result["error"] = {"what": "not everything could be put back", "why": "; ".join(problems), "fix": fix}

    def _would(self, tx, choice):
        left = set(choice["leave"])
        items = [item for item in tx.manifest["items"] if item["path"] not in left and not self.tree.same(item)]
        found = [item["path"] for item in items]
        found += [path for path in tx.manifest["trees"] if path not in left and grown(self.tree, tx.manifest, path)]
        found += [path for pattern in sorted(tx.manifest["links"]) for path in strays(self.tree, tx.manifest, pattern)]
        return found + self._would_besides(tx, choice["force"])

    def _would_besides(self, tx, force):
        """Kernel values and units that would go back: what :class:`Undo` does with them, only asked."""
        found, commit = [], tx.last("commit")
        for path, before in sorted(tx.manifest["knobs"].items()):
            now, ours = self.tree.value(path), commit["knobs"].get(path)
            if before is None or now is None or expectations.same_value(path, now, before):
                continue
            if force or ours is None or expectations.same_value(path, now, ours):
                found.append(path)
        for unit, before in sorted(tx.manifest["units"].items()):
            states = ("enabled", "disabled")
            if before in states and self.shop.has("unit-state"):
                now = self.shop.unit_state(unit)
                found += [unit] if now in states and now != before else []
        return found

    def _keep(self, tx, path):
        """What a forced roll-back writes over is kept beside the journal."""
        if self.tree.is_file(path):
            name = "overwritten-%s" % re.sub(r"[^A-Za-z0-9.-]", "_", path)
            target = os.path.join(tx.path, name)
            remove_quietly(target)
            remove_quietly(temporary_name(target))
            self.tree.image(path, tx.path, 0)
            os.rename(os.path.join(tx.path, "000"), target)
