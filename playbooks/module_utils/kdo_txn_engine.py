# SPDX-License-Identifier: Apache-2.0
"""The engine of `kdo_txn`: apply, undo, recover, roll back."""

import os
import time

try:
    from ansible.module_utils import kdo_txn_boot as boot
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils import kdo_txn_expect as expectations
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils import kdo_txn_scope as scope
    from ansible.module_utils import kdo_txn_trial as trial
    from ansible.module_utils.kdo_txn_back import RollBack
    from ansible.module_utils.kdo_txn_cmd import CommandError, Interrupted, Runner, Shop, Signals
    from ansible.module_utils.kdo_txn_action import StepError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_fs import FileError, Tree
    from ansible.module_utils.kdo_txn_host import boot_id
    from ansible.module_utils.kdo_txn_log import Busy, Lock, StateError, Store, make_private
    from ansible.module_utils.kdo_txn_look import Look
    from ansible.module_utils.kdo_txn_steps import Doer
    from ansible.module_utils.kdo_txn_undo import Undo
except ImportError:
    import kdo_txn_boot as boot
    import kdo_txn_doc as doc
    import kdo_txn_expect as expectations
    import kdo_txn_kit as kit
    import kdo_txn_scope as scope
    import kdo_txn_trial as trial
    from kdo_txn_back import RollBack
    from kdo_txn_cmd import CommandError, Interrupted, Runner, Shop, Signals
    from kdo_txn_action import StepError
    from kdo_txn_files import Refused
    from kdo_txn_fs import FileError, Tree
    from kdo_txn_host import boot_id
    from kdo_txn_log import Busy, Lock, StateError, Store, make_private
    from kdo_txn_look import Look
    from kdo_txn_steps import Doer
    from kdo_txn_undo import Undo


class Failed(Exception):
    """A step or an expectation failed."""

    def __init__(self, what, why):
        Exception.__init__(self, "%s: %s" % (what, why))
        self.what, self.why = what, why


def problem(error):
    """What, why and what to do, for anything that can go wrong."""
    if isinstance(error, Refused):
        return {"what": error.what, "why": error.why, "fix": error.fix}
    if isinstance(error, Failed):
        return {
            "what": error.what,
            "why": error.why,
            "fix": "look at the output of the step, put right what it names, apply again",
        }
    if isinstance(error, Busy):
        fix = "wait until it has ended, then try again"
        return {
            "what": "another transaction is running",
            "why": "its lock is held, by it or by a command it started",
            "fix": fix,
        }
    if isinstance(error, Interrupted):
        return {
            "what": "interrupted",
            "why": "signal %s arrived" % error,
            "fix": "apply again when it may run to its end",
        }
    if isinstance(error, StateError):
        return {
            "what": "the state directory is not safe",
            "why": str(error),
            "fix": "make it a directory that only root can write",
        }
    if isinstance(error, OSError):
        why = "%s: %s" % (os.strerror(error.errno) if error.errno else type(error).__name__, error.filename or "")
        return {
            "what": "the host could not be read or written",
            "why": why.rstrip(": "),
            "fix": "put right what is named here, then try again",
        }
    what, why = (
        "the transaction cannot go on",
        str(error) if isinstance(error, (FileError, CommandError)) else type(error).__name__,
    )
    return {
        "what": what,
        "why": why[:300],
        "fix": "if the reason is not clear, report it with the status of the transaction",
    }


class Engine(RollBack):
    def __init__(self, root, state_dir, runner, booting=False):
        if not isinstance(state_dir, str) or not state_dir.startswith("/"):
            raise Refused("the state directory is not valid", "it is not an absolute path", "give an absolute path")
        self.tree = Tree(root)
        inside = self.tree.root != "/" and (state_dir + "/").startswith(self.tree.root + "/")
        self.state_dir = os.path.normpath(state_dir)
        self.store = Store(self.state_dir if inside else self.tree.real(self.state_dir))
        self.signals = Signals()
        self._runner = runner
        self.booting = booting
        self.lock = None
        if runner is None and self.tree.root != "/":
            raise Refused("commands cannot be run", "the root is not / and no runner is given", "give a runner")
        if self.tree.root == "/" and os.geteuid() != 0:
            raise Refused("this needs root", "it is run as user %d" % os.geteuid(), "run it as root")

    def locked(self, wait=0, create=True):
        if create:
            make_private(self.store.path)
        self.store.check()
        self.lock = Lock(self.store.path, wait, create)
        return self.lock

    @property
    def shop(self):
        keep = [self.lock.handle] if self.lock is not None and self.lock.handle is not None else []
        return Shop(self.tree, self._runner or Runner(self.signals, keep), self.signals)

    # Undo.

    def undo(self, tx, why):
        """(state, problems). Signals wait: half an undo helps nobody."""
        self.signals.hold += 1
        try:
            try:
                tx.append("undo-start", why=why)
            except OSError:
                pass  # without this record the journal says unfinished, which leads here again
            problems = Undo(self.tree, self.shop, tx, booting=self.booting).run()
            if problems:
                tx.append("undo-incomplete", problems=problems)
                return "undo-incomplete", problems
            tx.append("undo-done")
            self._close(tx)
            tx.drop_images()
            return "undone", []
        finally:
            self.signals.hold -= 1

    def _close(self, tx):
        boot.remove(self.tree, boot.WANTS in tx.manifest.get("wants", []))

    def recover(self, give_up=False):
        """Finish what a kill left. Returns what was done, newest first."""
        done, seen = [], set()
        while True:
            left = [tx for tx in self.store.unfinished() if tx.name not in seen]
            if not left:
                break
            tx, state = left[0], left[0].state()  # undoing one may begin another: a confirmed trial goes back as a pair
            seen.add(tx.name)
            if state == "new":
                self._discard(tx)
                continue
            self.signals.hold += 1
            try:
                if state == "rollback-unfinished":
                    result, problems, _ = self._roll_back(tx, tx.last("rollback-start"))
                else:
                    result, problems = self.undo(tx, "found unfinished")
                if result == "undo-incomplete" and give_up:
                    tx.append("given-up", problems=problems)
                    self._close(tx)
                    result = "given-up"
            finally:
                self.signals.hold -= 1
            done.append({"transaction": tx.name, "state": result, "problems": problems})
        if not self.store.unfinished():
            newest = self.store.all()[-2:]  # a confirmed trial and its confirmation end together
            boot.remove(self.tree, any(boot.WANTS in tx.manifest.get("wants", []) for tx in newest))
        return done

    def _discard(self, tx):
        made = []
        try:
            made = tx.manifest.get("wants", [])
        except (OSError, ValueError):
            pass
        boot.remove(self.tree, boot.WANTS in made)
        tx.discard()

    # Apply.

    def look(self, change):
        """For each step, whether it would change something; Refused if one is impossible."""
        if "confirms" in change:
            trial.confirmable(self.tree, self.store, change)
        return Look(self.tree, self.shop, change, self.store.path).run()

    def holds(self, change):
        """Refused if all steps are done, and still something is not as the plan expects it."""
        for index, item in enumerate(change.get("expect", [])):
            why = expectations.check(self.tree, item)
            if why:
                why += ", though every step is done already"
                raise Refused("expectation %d is not met" % index, why, "make a new plan")

    def apply(self, change, result):
        state = self.look(change)
        for index, changes in enumerate(state):
            result["steps"][index]["result"] = "would change" if changes else "unchanged"
        if not any(state):
            self.holds(change)
            result["state"] = "committed"
            return
        if self.already(change, state):
            result.update(state="committed", transaction=self.store.newest("committed").name)
            for row in result["steps"]:
                row["result"] = "unchanged"
            return
        tx = None
        try:
            tx, number = self.store.open(change)
            result["transaction"] = tx.name
            scope.take(self.tree, self.shop, tx, number, change)
            self._arm(tx)
            tx.append("begin", id=change["id"])
            self._steps(tx, change, result)
            self._expect(change)
            tx.append("expect-ok")
            after = self._after(tx)
            self.signals.hold += 1  # from here on it counts, and a signal comes too late
            tx.append("commit", **after)
            self._committed(tx, result, after)
        except BaseException as error:  # whatever it was, the host goes back to what it was
            self.signals.hold += 1
            result["error"] = problem(error)
            self._after_error(tx, result)
        self._tidy()

    def _arm(self, tx):
        if boot.possible(self.tree, self.state_dir):
            # What was missing the first time: a roll-back arms again, when the change itself may have made it.
            tx.manifest["wants"] = tx.manifest.get("wants") or self.tree.missing_dirs(boot.WANTS)
            tx.write_json("manifest.json", tx.manifest)
            boot.install(self.tree, self.state_dir, self.store.path)

    def _committed(self, tx, result, after):
        before = {item["path"]: item.get("sha256") for item in tx.manifest["items"]}
        shown = {item["path"] for item in tx.manifest["items"] if item["group"] in ("config", "anew")}
        result["after"] = {
            path: value for path, value in after["after"].items() if path in shown and value != before[path]
        }
        changed = result["changed"] or any(row["result"] == "changed" for row in result["steps"])
        result.update(changed=changed, state="committed")
        try:
            self._close(tx)
        except OSError:
            pass  # the next call removes it; committed is committed

    def _after_error(self, tx, result):
        for row in result["steps"]:
            if row["result"] == "would change":
                row["result"] = "not done"
        if tx is None or tx.state() == "new":
            result["state"] = "refused"
            if tx is not None:
                self._discard(tx)
            return
        if tx.state() == "committed":
            result["state"] = "committed"
            return
        try:
            result["state"], problems = self.undo(tx, result["error"]["what"])
        except BaseException as error:
            result["state"], problems = "undo-incomplete", ["%(what)s: %(why)s" % problem(error)]
        if problems:
            result["error"]["why"] += "; and not everything could be put back: " + "; ".join(problems)
            result["error"]["fix"] = (
                "put right what could not be put back, then apply again: it finishes the undo first"
            )
        for row in result["steps"]:
            if row["result"] == "changed":
                row["result"] = "undone" if result["state"] == "undone" else row["result"]

    def _tidy(self):
        try:
            self.store.prune()
        except OSError:
            pass

    def _steps(self, tx, change, result):
        doer = Doer(self.tree, self.shop, tx)
        for index, step in enumerate(change["steps"]):
            row, began = result["steps"][index], time.monotonic()
            self.signals.check()
            tx.append("step-start", index=index)
            try:
                row["result"], row["output"] = doer.do(index, step)
            except (StepError, CommandError) as error:
                row["output"] = error.output
                raise Failed("step %d (%s) failed" % (index, doc.what(step)), error.why)
            finally:
                row["seconds"] = round(time.monotonic() - began, 3)
                if row["result"] == "would change":
                    row["result"] = "failed"
            tx.append("step-done", index=index, result=row["result"])

    def _expect(self, change):
        for index, item in enumerate(change.get("expect", [])):
            why = expectations.check(self.tree, item)
            if why:
                raise Failed("expectation %d is not met" % index, why)

    def _after(self, tx):
        paths = [item["path"] for item in tx.manifest["items"]]
        return {
            "after": {path: self.tree.hash(path) for path in paths},
            "knobs": {path: self.tree.value(path) for path in tx.manifest["knobs"]},
            "boot_id": boot_id(self.tree),
        }

    def already(self, change, state):
        """This very change was committed, is all in place, and holds: nothing to run again."""
        last = self.store.newest("committed")
        if last is None or last.change.get("id") != change["id"]:
            return False
        if any(state[index] for index, step in enumerate(change["steps"]) if step["op"] != "action"):
            return False
        tried = trial.step_of(change)
        if tried is not None and kit.TRIALS[tried["name"]].there(self.tree) != change["id"][:8]:
            return False
        return not any(expectations.check(self.tree, item) for item in change.get("expect", []))
