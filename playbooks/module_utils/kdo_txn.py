# SPDX-License-Identifier: Apache-2.0
"""Apply a plan on the host it was made for, as a transaction: all of it, or none of it.

    look → picture → begin → step … step → expectations → commit
                       └── anything else, a signal, a kill, power loss ──▶ undo

The journal says which side of ``commit`` the host is on. Whoever comes next (an apply, a rollback, the unit at boot)
finishes an undo that was cut short. Results carry names, hashes and reasons, never what is in a file.

Runnable: ``python3 kdo_txn.py recover|status|rollback|reboot-once [--state-dir DIR]``.
"""

import json
import os
import sys

try:
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils import kdo_txn_trial as trial
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_engine import Engine, problem
    from ansible.module_utils.kdo_txn_log import OPEN
except ImportError:
    import kdo_txn_doc as doc
    import kdo_txn_trial as trial
    from kdo_txn_files import Refused
    from kdo_txn_engine import Engine, problem
    from kdo_txn_log import OPEN

STATE_DIR = "/var/lib/kdump-orchestrator"
RECOVER_WAIT = 60


def _guard(result, function):
    """Run it; whatever happens becomes part of the result."""
    try:
        function()
    except BaseException as error:
        result["error"] = problem(error)
        result["state"] = (
            result["state"] if result["state"] in ("undone", "undo-incomplete", "committed") else "refused"
        )
    return result


def _open_result(engine, result, recovered):
    result["recovered"] = recovered
    stuck = [row for row in recovered if row["state"] == "undo-incomplete"]
    if stuck:
        why = "%s: %s" % (stuck[0]["transaction"], "; ".join(stuck[0]["problems"]))
        raise Refused(
            "an earlier transaction could not be undone",
            why,
            "put right what is named, then try again, or give it up with recover --give-up",
        )


def _would_recover(transactions):
    return [{"transaction": tx.name, "state": "would be undone first", "problems": []} for tx in transactions]


def run(change, root="/", state_dir=STATE_DIR, check=False, runner=None):
    """Apply `change`. With `check`, say what would be done and write nothing at all."""
    result = {
        "changed": False,
        "state": "refused",
        "transaction": None,
        "steps": [],
        "recovered": [],
        "error": None,
        "after": {},
    }

    def work():
        doc.validate(change)
        result["steps"] = [
            {
                "index": index,
                "op": step["op"],
                "what": doc.what(step),
                "result": "not done",
                "seconds": 0.0,
                "output": "",
            }
            for index, step in enumerate(change["steps"])
        ]
        engine = Engine(root, state_dir, runner)
        with engine.signals, engine.locked(create=not check):
            if check:
                open_ones = [tx for tx in engine.store.unfinished() if tx.state() != "new"]
                result["recovered"] = _would_recover(open_ones)
                state = engine.look(change)
                already = engine.already(change, state)
                for index, changes in enumerate(state):
                    result["steps"][index]["result"] = "would change" if changes and not already else "unchanged"
                if not any(state) and not open_ones:
                    engine.holds(change)
                result.update(state="check", changed=bool(open_ones) or (any(state) and not already))
                return
            _open_result(engine, result, engine.recover())
            result["changed"] = bool(result["recovered"])  # an undo that somebody left to us is a change of the host
            engine.apply(change, result)

    return _guard(result, work)


def recover(root="/", state_dir=STATE_DIR, runner=None, booting=False, give_up=False, wait=RECOVER_WAIT):
    """Undo whatever was left unfinished. Doing it when nothing is left changes nothing."""
    result = {"changed": False, "state": "nothing", "recovered": [], "error": None}

    def work():
        engine = Engine(root, state_dir, runner, booting)
        if not os.path.isdir(engine.store.path):
            return
        with engine.signals, engine.locked(wait):
            result["recovered"] = engine.recover(give_up)
        result["changed"] = bool(result["recovered"])
        bad = [row for row in result["recovered"] if row["state"] == "undo-incomplete"]
        result["state"] = "undo-incomplete" if bad else "recovered" if result["recovered"] else "nothing"
        if bad:
            fix = "put right what is named here, then recover again"
            result["error"] = {
                "what": "not everything could be put back",
                "why": "; ".join(bad[0]["problems"]),
                "fix": fix,
            }

    return _guard(result, work)


def rollback(root="/", state_dir=STATE_DIR, runner=None, force=False, check=False):
    """Undo the newest committed transaction."""
    result = {
        "changed": False,
        "state": "nothing",
        "transaction": None,
        "put_back": [],
        "reboot": False,
        "recovered": [],
        "error": None,
    }

    def work():
        engine = Engine(root, state_dir, runner)
        if not os.path.isdir(engine.store.path):
            return
        with engine.signals, engine.locked(create=not check):
            if not check:
                _open_result(engine, result, engine.recover())
                finished = [row for row in result["recovered"] if row["state"] == "rolled-back"]
                if finished:  # that was the roll-back which was asked for before
                    result.update(changed=True, state="rolled-back", transaction=finished[0]["transaction"])
                    return
            open_ones = [tx for tx in engine.store.unfinished() if tx.state() != "new"] if check else []
            result["recovered"] += _would_recover(open_ones)
            engine.roll_back(force, check, result)
            result["changed"] = result["changed"] or bool(open_ones)

    return _guard(result, work)


def reboot_once(root="/", state_dir=STATE_DIR, runner=None):
    """Boot the entry of the newest trial, once: choose it and reboot, with nothing that could break in between."""
    result = {"changed": False, "state": "refused", "transaction": None, "recovered": [], "error": None}

    def work():
        engine = Engine(root, state_dir, runner)
        with engine.signals, engine.locked():
            if engine.store.unfinished():
                why = "an earlier transaction is not finished"
                raise Refused("there is nothing to try", why, "apply again: it finishes it first")
            result["transaction"] = trial.arm_and_reboot(engine.tree, engine.shop, engine.store)
        result.update(changed=True, state="rebooting")

    return _guard(result, work)


def status(root="/", state_dir=STATE_DIR):
    """The transactions on this host, oldest first. Reads only."""
    result = {"transactions": [], "unfinished": [], "error": None, "state": "ok"}

    def work():
        engine = Engine(root, state_dir, lambda *_: (127, ""))
        engine.store.check()
        for tx in engine.store.all():
            state, records = tx.state(), tx.records()
            change = tx.change if state != "new" else {}
            result["transactions"].append(
                {
                    "transaction": tx.name,
                    "id": change.get("id", ""),
                    "title": change.get("title", ""),
                    "state": state,
                    "began": records[0]["at"] if records else "",
                    "ended": records[-1]["at"] if records and state not in OPEN else "",
                    "steps": [doc.what(step) for step in change.get("steps", [])],
                }
            )
            if state in OPEN:
                result["unfinished"].append(tx.name)

    return _guard(result, work)


def main(argv):
    """``recover`` for the unit at boot, ``status`` and ``rollback`` for people without a controller, ``reboot-once`` for a trial."""
    words = [word for word in argv if not word.startswith("-")]
    state_dir = STATE_DIR
    if "--state-dir" in argv[:-1]:
        state_dir = argv[argv.index("--state-dir") + 1]
        words.remove(state_dir)
    known = {"--state-dir", "--boot", "--give-up", "--force", "--check"}
    if (
        len(words) != 1
        or words[0] not in ("recover", "status", "rollback", "reboot-once")
        or any(word.startswith("-") and word not in known for word in argv)
    ):
        sys.stderr.write(
            "usage: kdo_txn.py status|recover|rollback|reboot-once [--state-dir DIR] [--boot] [--give-up] [--force] [--check]\n"
        )
        return 2
    if words[0] == "status":
        result = status(state_dir=state_dir)
    elif words[0] == "rollback":
        result = rollback(state_dir=state_dir, force="--force" in argv, check="--check" in argv)
    elif words[0] == "reboot-once":
        result = reboot_once(state_dir=state_dir)
    else:
        result = recover(state_dir=state_dir, booting="--boot" in argv, give_up="--give-up" in argv)
    sys.stdout.write(json.dumps(result, indent=2, sort_keys=True) + "\n")
    return 1 if result["error"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
