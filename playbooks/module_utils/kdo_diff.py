# SPDX-License-Identifier: Apache-2.0
"""What ``--diff`` shows: the configuration files of a change before and after it, with secrets blanked.

Only made where somebody asks for it. Files that commands make (boot menus, images) are named by their steps, not shown.
"""

import os

try:
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils.kdo_edit import EditError
    from ansible.module_utils.kdo_probe_redact import Redactor
    from ansible.module_utils.kdo_txn_back import RollBack
    from ansible.module_utils.kdo_txn_files import EDITS, Refused, edited
    from ansible.module_utils.kdo_txn_fs import FileError, Tree
    from ansible.module_utils.kdo_txn_log import StateError, Store
except ImportError:
    import kdo_txn_doc as doc
    from kdo_edit import EditError
    from kdo_probe_redact import Redactor
    from kdo_txn_back import RollBack
    from kdo_txn_files import EDITS, Refused, edited
    from kdo_txn_fs import FileError, Tree
    from kdo_txn_log import StateError, Store

LARGEST = 1 << 20  # bytes of a file that is shown


class Pictures(object):
    """Texts of files, taken now, and again once something was done. ``None`` = the file is not there."""

    def __init__(self, root, paths):
        self.tree = Tree(root)
        self.before = {path: self.now(path) for path in paths}

    def now(self, path):
        """The file's bytes; not for what is no plain file, or too large to be shown."""
        try:
            return self.tree.read(path, LARGEST)
        except (OSError, FileError):
            return None

    def rows(self, after):
        """Ansible's form: one entry for each file whose text differs."""
        redactor, out = Redactor(), []
        for path in sorted(after):
            old, new = self.before[path], after[path]
            if old == new:
                continue
            row = {
                "before_header": path if old is not None else "%s (not there)" % path,
                "after_header": path if new is not None else "%s (not there)" % path,
            }
            for key, data in (("before", old), ("after", new)):
                row[key] = redactor.text((data or b"").decode("utf-8", "replace"))[0]
            if row["before"] == row["after"]:  # they differ in what must not be shown, or one of them is empty
                row = {"prepared": "%s: it differs in what is not shown here (secrets, or an empty file)\n" % path}
            out.append(row)
        return out


def of_change(change, root="/"):
    """Pictures of the files that a change edits, or None for a document that will be refused anyway."""
    try:
        doc.validate(change)
    except Refused:
        return None
    except Exception:  # noqa: B902 - the transaction itself says what is wrong with it
        return None
    return Pictures(root, sorted({s["path"] for s in change["steps"] if s["op"] in ("write", "remove") + EDITS}))


def predicted(pictures, change, steps):
    """What the files will hold. A file that a package has yet to bring is left out: nobody can know its text."""
    after = dict(pictures.before)
    for step, row in zip(change["steps"], steps, strict=False):
        if step.get("path") not in after or row["result"] != "would change":
            continue
        now = after[step["path"]]
        if step["op"] == "write":
            after[step["path"]] = step["text"].encode("utf-8")
        elif step["op"] == "remove":
            after[step["path"]] = None
        elif now is not None:
            try:
                after[step["path"]] = edited(now, step)
            except EditError:
                continue
    return after


def prepared(steps):
    """All steps as lines, for what no file shows."""
    return {"prepared": "".join("%-12s %s\n" % (row["result"], row["what"]) for row in steps)}


def apply_rows(pictures, change, result, check):
    """The diff of an apply, done or predicted."""
    rows = []
    if pictures is not None:
        done = predicted(pictures, change, result["steps"]) if check else {p: pictures.now(p) for p in pictures.before}
        rows = pictures.rows(done)
    if any(row["result"] != "unchanged" for row in result["steps"]):
        rows.append(prepared(result["steps"]))
    return rows


class Kept(RollBack):
    """What the newest transaction (and the trial that it confirmed) has kept of configuration files."""

    def __init__(self, state_dir, root="/"):
        self.tree, self.store = Tree(root), Store(state_dir)

    def originals(self):
        """path → bytes before the transaction, or None."""
        found = {}
        try:
            tx = self.store.newest("committed") if os.path.isdir(self.store.path) else None
            for owner in [tx, self._tried(tx)] if tx is not None else []:
                for item in owner.manifest["items"] if owner is not None else []:
                    if item["group"] != "config" or item["kind"] not in ("file", "absent"):
                        continue
                    found[item["path"]] = None  # of two, the older one is what comes back
                    if item["kind"] == "file":
                        with open(os.path.join(owner.before, item["image"]), "rb") as stream:
                            found[item["path"]] = stream.read(LARGEST)
        except (OSError, ValueError, KeyError, StateError):
            return {}
        return found


def rollback_rows(pictures, originals, result, check):
    """The diff of a roll-back, done or predicted."""
    after = {}
    for path in pictures.before:
        if path in result["put_back"]:
            after[path] = originals[path] if check else pictures.now(path)
    rows = pictures.rows(after)
    rest = [path for path in result["put_back"] if path not in pictures.before]
    word = "would go back" if check else "put back"
    return rows + ([{"prepared": "".join("%-12s %s\n" % (word, text) for text in rest)}] if rest else [])
