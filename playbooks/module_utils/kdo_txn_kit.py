# SPDX-License-Identifier: Apache-2.0
"""Every action and every family there is, by name; and the actions that all families have."""

try:
    from ansible.module_utils import kdo_txn_files as files
    from ansible.module_utils.kdo_txn_action import Action, StepError, Trial
    from ansible.module_utils.kdo_txn_azurelinux import AzureLinux
    from ansible.module_utils.kdo_txn_debian import Debian
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_grub import Regenerate, Try
    from ansible.module_utils.kdo_txn_loader import Bls, RunZipl, Settle, SystemdBoot
    from ansible.module_utils.kdo_txn_host import loaded, reload_impossible, running_release
    from ansible.module_utils.kdo_txn_ostree import Kargs, Ostree
    from ansible.module_utils.kdo_txn_redhat import RedHat
    from ansible.module_utils.kdo_txn_suse import Commandline, Pbl, Suse
    from ansible.module_utils.kdo_txn_ssh import SshTarget
except ImportError:
    import kdo_txn_files as files
    from kdo_txn_action import Action, StepError, Trial
    from kdo_txn_azurelinux import AzureLinux
    from kdo_txn_debian import Debian
    from kdo_txn_files import Refused
    from kdo_txn_grub import Regenerate, Try
    from kdo_txn_loader import Bls, RunZipl, Settle, SystemdBoot
    from kdo_txn_host import loaded, reload_impossible, running_release
    from kdo_txn_ostree import Kargs, Ostree
    from kdo_txn_redhat import RedHat
    from kdo_txn_suse import Commandline, Pbl, Suse
    from kdo_txn_ssh import SshTarget

SERVICES = ("service-enable", "service-disable", "service-mask", "service-unmask")  # steps about a unit of the family


class Image(Action):
    members = ("release",)
    captures = True

    def what(self, step):
        return "%s %s" % (self.name, step["release"])

    def reach(self, tree, family, step, add):
        family.capture_reach(tree, add.change, [step["release"], running_release(tree)], add)

    def look(self, look, family, step):
        family.look_image(look, step["release"])
        return True

    def do(self, doer, family, step):
        return "changed", family.build(doer, step["release"])


class _Loading(Action):
    captures = True
    loads = True

    def reach(self, tree, family, step, add):
        family.capture_reach(tree, add.change, [running_release(tree)], add)


class Reload(_Loading):
    def look(self, look, family, step):
        family.look_load(look)
        why = reload_impossible(look.tree, family.argument)
        if why:
            raise Refused(
                "the capture kernel cannot be loaded", why, "make a plan that needs no reload, and reboot the host"
            )
        return True

    def do(self, doer, family, step):
        family.check_load(doer)
        output = family.load(doer.tree, doer.shop)
        if loaded(doer.tree) != "1":
            raise StepError("the load ended well, but no capture kernel is loaded", output)
        return "changed", output


class Unload(_Loading):
    def look(self, look, family, step):
        family.look_unload(look)
        if loaded(look.tree) == "1" and look.tree.value("/proc/sys/kernel/kexec_load_disabled") == "1":
            why = "kernel.kexec_load_disabled is 1, which lasts until the next boot"
            raise Refused("the capture kernel cannot be unloaded", why, "reboot the host with the new arguments")
        return loaded(look.tree) == "1"

    def do(self, doer, family, step):
        if loaded(doer.tree) != "1":
            return "unchanged", ""
        return "changed", unload(family, doer.tree, doer.shop)


def unload(family, tree, shop):
    """Take the capture kernel out of its memory. Returns what the command said."""
    output = family.unload(tree, shop)
    if loaded(tree) == "1":
        raise StepError("a capture kernel is still loaded", output)
    return output


FAMILIES = {family.name: family for family in (Debian(), RedHat(), Suse(), AzureLinux(), Ostree())}
ACTIONS = {
    action.name: action
    for action in (
        Image("kdump-build-image"),
        Reload("kdump-reload"),
        Unload("kdump-unload"),
        Regenerate("grub-regenerate"),
        Regenerate("grub2-regenerate", files.GRUB2_CONFIG, "grub2-check", tries=False),
        Try("grub-trial"),
        SystemdBoot("sdboot-trial"),
        Bls("bls-trial"),
        RunZipl("zipl"),
        Commandline("kdump-commandline"),
        Pbl("pbl-arguments"),
        Kargs("rpm-ostree-kargs"),
        SshTarget("ssh-target"),
    )
}
TRIALS = {name: action for name, action in ACTIONS.items() if isinstance(action, Trial)}
ACTIONS["loader-settle"] = Settle("loader-settle", [ACTIONS["sdboot-trial"], ACTIONS["bls-trial"]])
# Actions that make arguments the default: never in one change with a trial of them.
DEFAULTS = (
    "grub-regenerate",
    "grub2-regenerate",
    "loader-settle",
    "zipl",
    "kdump-commandline",
    "pbl-arguments",
    "rpm-ostree-kargs",
)


def make_anew(undo, path):
    """A file that commands can make again, which somebody else has changed since the picture."""
    for action, _step in undo.actions:
        action.made_anew(undo, path)
    if undo.installs and not any(action.name in DEFAULTS for action, _step in undo.actions):
        ACTIONS[undo.family.menu].made_anew(undo, path)


def family_of(change):
    return FAMILIES[change.get("family", "debian")]


def action_of(step):
    """The action of a step, or None for another kind of step."""
    return ACTIONS[step["name"]] if step["op"] == "action" else None


def actions(steps):
    """(action, step) of the steps that are actions, in order."""
    return [(ACTIONS[step["name"]], step) for step in steps if step["op"] == "action"]
