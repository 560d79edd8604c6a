# SPDX-License-Identifier: Apache-2.0
"""Undo by itself after power loss: a unit that exists only while a transaction is open.

It runs a copy of this engine from the state directory, before kdump-tools.service loads a capture kernel, and never in
the capture kernel itself (where /proc/vmcore is there).
"""

import errno
import os
import re
import sys

try:
    from ansible.module_utils.kdo_txn_fs import fsync_dir, write_whole
    from ansible.module_utils.kdo_txn_log import make_private
except ImportError:
    from kdo_txn_fs import fsync_dir, write_whole
    from kdo_txn_log import make_private

NAME = "kdump-orchestrator-recover.service"
FOLDER = "/etc/systemd/system"
WANTS = FOLDER + "/basic.target.wants"
MODULES = (
    "kdo_arguments",
    "kdo_conf",
    "kdo_edit",
    "kdo_ssh",
    "kdo_txn",
    "kdo_txn_action",
    "kdo_txn_azurelinux",
    "kdo_txn_back",
    "kdo_txn_boot",
    "kdo_txn_cmd",
    "kdo_txn_debian",
    "kdo_txn_doc",
    "kdo_txn_engine",
    "kdo_txn_expect",
    "kdo_txn_files",
    "kdo_txn_fs",
    "kdo_txn_grub",
    "kdo_txn_host",
    "kdo_txn_kit",
    "kdo_txn_loader",
    "kdo_txn_log",
    "kdo_txn_look",
    "kdo_txn_menu",
    "kdo_txn_ostree",
    "kdo_txn_redhat",
    "kdo_txn_scope",
    "kdo_txn_ssh",
    "kdo_txn_steps",
    "kdo_txn_suse",
    "kdo_txn_text",
    "kdo_txn_trial",
    "kdo_txn_undo",
)

UNIT = """# Written by kdump-orchestrator for the time of one transaction. Removed when it ends.
[Unit]
Description=Undo an unfinished change to the crash dump configuration
DefaultDependencies=no
Conflicts=shutdown.target
RequiresMountsFor=%(state)s
After=local-fs.target systemd-remount-fs.service
Before=kdump-tools.service kdump.service kdump-early.service basic.target shutdown.target
ConditionPathExists=%(state)s/engine/kdo_txn.py
ConditionPathExists=!/proc/vmcore

[Service]
Type=oneshot
ExecStart=%(python)s -B %(state)s/engine/kdo_txn.py recover --boot --state-dir %(state)s
TimeoutStartSec=15min

[Install]
WantedBy=basic.target
"""


def _source(name):
    """A module's own text, whether it came from a directory or from Ansible's archive."""
    # Under ansible.module_utils, or under a collection's plugins.module_utils.
    package = __name__.rpartition(".")[0]
    module = sys.modules.get(package + "." + name) or sys.modules.get(name)
    if module is None and name == "kdo_txn":  # run as a script
        module = sys.modules["__main__"]
    if module is None:
        return None
    loader = getattr(module, "__loader__", None)
    text = None
    if loader is not None and hasattr(loader, "get_source"):
        try:
            text = loader.get_source(module.__name__)
        except ImportError:
            pass
    if text is None:
        with open(module.__file__, "rb") as stream:
            return stream.read()
    return text.encode("utf-8")


def _python():
    path = sys.executable or ""
    if path.startswith("/usr/") and re.match(r"[A-Za-z0-9/._+-]+\Z", path) and not path.startswith("/usr/local/"):
        return path
    return "/usr/bin/python3"


def possible(tree, state_dir):
    """systemd's own directory is there, and the names can be written into a unit as they are."""
    return tree.stat(FOLDER) is not None and re.match(r"[A-Za-z0-9/._+-]+\Z", state_dir) is not None


def install(tree, state_dir, real_state_dir):
    if not possible(tree, state_dir):
        return False
    engine = os.path.join(real_state_dir, "engine")
    make_private(engine)
    for name in MODULES:
        text = _source(name)
        if text is None:
            return False
        path = os.path.join(engine, name + ".py")
        try:
            with open(path, "rb") as stream:
                there = stream.read()
        except OSError:
            there = None
        if there != text:
            write_whole(path, text, 0o600)
    unit = UNIT % {"state": state_dir, "python": _python()}
    write_whole(tree.real(FOLDER + "/" + NAME), unit.encode("ascii"), 0o644)
    tree.make_dirs(WANTS)
    link = tree.real(WANTS + "/" + NAME)
    if not os.path.islink(link):
        os.symlink("../" + NAME, link)
        fsync_dir(tree.real(WANTS))
    return True


def remove(tree, made_wants=False):
    """Nothing is unfinished: the unit goes, and the directory of links with it if it was made for it."""
    for path in (WANTS + "/" + NAME, FOLDER + "/." + NAME + ".kdo-new", FOLDER + "/" + NAME):
        if tree.stat(os.path.dirname(path)) is not None and tree.stat(path) is not None:
            tree.remove(path)
    if made_wants and tree.stat(WANTS) is not None:
        try:
            os.rmdir(tree.real(WANTS))
            fsync_dir(tree.real(FOLDER))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
