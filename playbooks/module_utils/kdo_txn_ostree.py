# SPDX-License-Identifier: Apache-2.0
"""rpm-ostree hosts: boot arguments are part of a deployment, and a change of them is a new one.

Words are deleted and appended as they stand: --append-if-missing and --delete-if-present look at the name of an argument
only (ostree's ostree_kernel_args_contains), so with another value they do nothing, or fail. Undone is a deployment that
nothing else has come after by taking it out again (cleanup -p), every other by the opposite change.
Sources: rpm-ostree(1), ostree's ostree-kernel-args.c.
"""

import json

try:
    from ansible.module_utils import kdo_arguments as arguments
    from ansible.module_utils.kdo_txn_action import Action, StepError
    from ansible.module_utils.kdo_txn_cmd import CommandError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_redhat import RedHat
except ImportError:
    import kdo_arguments as arguments
    from kdo_txn_action import Action, StepError
    from kdo_txn_cmd import CommandError
    from kdo_txn_files import Refused
    from kdo_txn_redhat import RedHat

_NO = "the boot arguments cannot be set"


class Ostree(RedHat):
    name = "ostree"
    packages = ()
    brings = {}

    def look_install(self, look, missing):
        why = "packages are part of the image"
        raise Refused("packages cannot be installed", why, "layer %s by hand" % ", ".join(missing))


def kargs(shop):
    """The arguments of the deployment that boots next."""
    rows = [row for row in shop.must("rpm-ostree-kargs").split("\n") if row.strip()]
    if not rows:
        raise CommandError("rpm-ostree-kargs", "it gave no answer")
    return arguments.words(rows[-1])  # some versions say a sentence first


def first(shop):
    """The deployment that boots next: its id, and whether it runs now."""
    _, _, whole = shop.run("rpm-ostree-status")
    try:
        found = json.loads(whole)["deployments"][0]
        return found["id"], bool(found["booted"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise CommandError("rpm-ostree-status", "it does not say which deployment boots next")


def difference(now, ensure, remove):
    """(words to delete, words to append), each as often as needed."""
    names = [arguments.key(word) for word in ensure] + list(remove)
    there = [word for word in now if arguments.key(word) in names]
    return _less(there, ensure), _less(ensure, there)


def _less(words, others):
    out = list(words)
    for word in others:
        if word in out:
            out.remove(word)
    return out


def change(shop, delete, append):
    words = ["--delete=" + word for word in delete] + ["--append=" + word for word in append]
    return shop.must("rpm-ostree-kargs", *words)


class Kargs(Action):
    """A deployment with other arguments, which boots from the next boot on."""

    members = ("ensure", "remove")

    def what(self, step):
        return "make a deployment with other boot arguments"

    def look(self, look, family, step):
        look.commands("rpm-ostree-kargs", "rpm-ostree-status", "rpm-ostree-cleanup")
        try:
            now, (_, booted) = kargs(look.shop), first(look.shop)
        except CommandError as error:
            raise Refused(_NO, error.why, "look at rpm-ostree status")
        if not any(difference(now, step["ensure"], step["remove"])):
            return False
        if not booted:
            fix = "reboot into it, or take it out (rpm-ostree cleanup -p), then plan again"
            raise Refused(_NO, "somebody's deployment is pending, which undoing could not keep apart from ours", fix)
        return True

    def do(self, doer, family, step):
        now = kargs(doer.shop)
        delete, append = difference(now, step["ensure"], step["remove"])
        if not delete and not append:
            return "unchanged", ""
        doer.tx.append("ostree", delete=delete, append=append)
        output = change(doer.shop, delete, append)
        if any(difference(kargs(doer.shop), step["ensure"], step["remove"])):
            raise StepError("rpm-ostree ended well, but its arguments are not as asked", output)
        doer.tx.append("ostree-made", id=first(doer.shop)[0])
        return "changed", output

    def undo_after(self, undo, step):
        done = [record for record in undo.records if record["event"] == "ostree"]
        made = [record["id"] for record in undo.records if record["event"] == "ostree-made"]
        committed = any(record["event"] == "commit" for record in undo.records)
        if not done:
            return
        delete, append = done[-1]["delete"], done[-1]["append"]
        now, (ident, booted) = kargs(undo.shop), first(undo.shop)
        if not _less(append, now) and not (append == [] and all(word in now for word in delete)):
            if not booted and (ident in made or not committed):
                undo.shop.must("rpm-ostree-cleanup")
            else:
                change(undo.shop, _less(append, _less(append, now)), _less(delete, now))
                undo.note("a deployment with the old arguments, for the next boot")
            now = kargs(undo.shop)
            if any(word in now for word in append) or _less(delete, now):
                raise CommandError("rpm-ostree-kargs", "the old arguments are not back")
            undo.note("boot arguments of the deployment")
