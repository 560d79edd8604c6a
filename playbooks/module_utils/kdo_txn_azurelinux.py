# SPDX-License-Identifier: Apache-2.0
"""Azure Linux: kdumpctl, which once built over the host's own initrd (microsoft/azurelinux#6478).

So the host's initrd is in the picture, and a change after which it is another one has failed.
"""

import re

try:
    from ansible.module_utils import kdo_txn_files as files
    from ansible.module_utils.kdo_txn_action import StepError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_host import running_release
    from ansible.module_utils.kdo_txn_redhat import RedHat, conf_problem
except ImportError:
    import kdo_txn_files as files
    from kdo_txn_action import StepError
    from kdo_txn_files import Refused
    from kdo_txn_host import running_release
    from kdo_txn_redhat import RedHat, conf_problem

# What its kdumpctl knows besides.
_OWN = re.compile(r"^(disable_crash_dump_reboot|mariner_2_initrd_use_suffix|override_resettable)\b.*$", re.M)


def initrds(tree):
    """The initrds that the host itself boots with."""
    release = running_release(tree)
    return ["/boot/initrd.img-" + release, "/boot/initramfs-%s.img" % release]


class AzureLinux(RedHat):
    name = "azurelinux"
    packages = ()
    brings = {}
    menu = "grub2-regenerate"

    def look_install(self, look, missing):
        why = "tdnf's transactions cannot be taken back"
        raise Refused("packages cannot be installed", why, "install %s by hand" % ", ".join(missing))

    def capture_reach(self, tree, change, releases, add):
        RedHat.capture_reach(self, tree, change, releases, add)
        add("derived", *initrds(tree))

    def check_load(self, doer):
        data = doer.tree.read(files.KDUMP_CONF)
        text = None if data is None else _OWN.sub("", data.decode("utf-8", "surrogateescape"))
        problem = "it is not there" if text is None else conf_problem(text)
        if problem:
            raise StepError("kdumpctl would not take %s: %s" % (files.KDUMP_CONF, problem))

    def build(self, doer, release):
        with _Kept(doer.tree):
            return RedHat.build(self, doer, release)

    def load(self, tree, shop):
        with _Kept(tree):
            return RedHat.load(self, tree, shop)


class _Kept(object):
    """The host's initrds are the same afterwards, whatever else happened."""

    def __init__(self, tree):
        self.tree = tree

    def __enter__(self):
        self.before = [self.tree.hash(path) for path in initrds(self.tree)]

    def __exit__(self, *_):
        for path, before in zip(initrds(self.tree), self.before):  # noqa: B905 - not in Python 3.6
            if self.tree.hash(path) != before:
                raise StepError("kdumpctl built over the host's own initrd %s (microsoft/azurelinux#6478)" % path)
