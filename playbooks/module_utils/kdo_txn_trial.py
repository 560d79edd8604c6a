# SPDX-License-Identifier: Apache-2.0
"""New boot arguments for exactly one boot, whatever the boot stack: what may be booted, and what may follow it.

The entry is made by the stack's own action, and nothing boots it until it is chosen, in one call with the reboot.
"""

try:
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_host import boot_id
    from ansible.module_utils.kdo_txn_menu import wrong
except ImportError:
    import kdo_txn_kit as kit
    from kdo_txn_files import Refused
    from kdo_txn_host import boot_id
    from kdo_txn_menu import wrong


def step_of(change):
    """The step that tries arguments, or None."""
    return next((step for step in change["steps"] if step.get("name") in kit.TRIALS), None)


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
    if tx.last("commit")["boot_id"] != boot_id(tree):
        raise Refused("there is nothing to try", "the trial was booted before", "kdo rollback, then apply again")
    change_id, step = tx.change["id"], step_of(tx.change)
    trial = kit.TRIALS[step["name"]]
    if trial.there(tree) != change_id[:8]:
        raise Refused("there is nothing to try", "the boot menu does not hold the entry", "kdo rollback")
    trial.possible(tree, shop, step, change_id)  # everything is still as it must be
    try:
        trial.arm(tree, shop, change_id)
        tx.append("armed", boot_id=boot_id(tree))
        shop.must("reboot")
    except BaseException:
        trial.disarm(tree, shop)
        raise
    return tx.name


def confirmable(tree, store, change):
    """Refused, unless the trial that is confirmed is the newest transaction and is what runs."""
    newest, fix = store.newest("committed"), "kdo rollback, then apply again"
    if newest is not None and newest.change["id"] == change["id"]:
        return
    if newest is None or newest.change["id"] != change["confirms"] or step_of(newest.change) is None:
        raise Refused("there is no trial to confirm", "the newest transaction is not that trial", fix)
    if newest.last("commit")["boot_id"] == boot_id(tree):
        raise Refused("the trial cannot be confirmed", "it has not been booted", fix)
    if not runs(tree, step_of(newest.change)):
        raise Refused("the trial cannot be confirmed", "the running kernel does not have the arguments", fix)


def runs(tree, step):
    """Whether the running kernel has the arguments of the trial."""
    return wrong((tree.value("/proc/cmdline") or "").split(), step) is None
