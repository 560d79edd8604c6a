# SPDX-License-Identifier: Apache-2.0
"""The files that a plan may touch, what it may do to each, and what an expectation may read.

Paths come from these tables, never from a document: a document only picks from them.
"""

import re

try:
    from ansible.module_utils import kdo_arguments as arguments
    from ansible.module_utils import kdo_txn_text as text_rules
    from ansible.module_utils.kdo_conf import ConfError
    from ansible.module_utils.kdo_conf import edit as edit_settings
    from ansible.module_utils.kdo_edit import EditError, assign
except ImportError:
    import kdo_arguments as arguments
    import kdo_txn_text as text_rules
    from kdo_conf import ConfError
    from kdo_conf import edit as edit_settings
    from kdo_edit import EditError, assign

KDUMP_DEFAULTS = "/etc/default/kdump-tools"
KDUMP_CONF = "/etc/kdump.conf"
KDUMP_SYSCONFIG = "/etc/sysconfig/kdump"
GRUB_SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"
SYSCTL_SNIPPET = "/etc/sysctl.d/60-kdump-orchestrator.conf"
GRUB_CONFIG = "/boot/grub/grub.cfg"
GRUB2_CONFIG = "/boot/grub2/grub.cfg"
GRUB_CUSTOM = "/boot/grub/custom.cfg"
NOTIFIERS = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"
EDITS = ("assign", "settings", "arguments")

# path → (operations, check of a written text)
FILES = {
    KDUMP_DEFAULTS: (("assign",), None),
    KDUMP_CONF: (("settings",), None),
    KDUMP_SYSCONFIG: (("assign",), None),
    GRUB_SNIPPET: (("write", "remove"), text_rules.grub_text),
    SYSCTL_SNIPPET: (("write", "remove"), text_rules.sysctl_text),
    arguments.KERNEL_CMDLINE: (("arguments", "write"), text_rules.command_line),
    arguments.ZIPL: (("arguments",), None),
    arguments.GRUB_DEFAULTS: (("arguments",), None),
}
# What an expectation may read besides the files above.
READABLE = (
    GRUB_CONFIG,
    GRUB2_CONFIG,
    NOTIFIERS,
    "/sys/kernel/kexec_crash_loaded",
    "/sys/kernel/kexec_crash_size",
    "/sys/kernel/kexec/crash_loaded",
    "/sys/kernel/kexec/crash_size",
)


class Refused(Exception):
    """Nothing was done. ``what`` happened, ``why``, and how to ``fix`` it."""

    def __init__(self, what, why, fix="make a new plan with this version of the tool"):
        Exception.__init__(self, "%s: %s" % (what, why))
        self.what, self.why, self.fix = what, why, fix


def rule(path):
    """(operations, check of a written text) for a path; no operations for one that is not ours to touch."""
    if arguments.ENTRY.match(path) or arguments.GRUBENV.match(path):
        return ("arguments",), None
    return FILES.get(path, ((), None))


def knob_path(path):
    if path == NOTIFIERS:
        return True
    match = re.match(r"/proc/sys/kernel/([a-z_]+)\Z", path)
    return bool(match) and text_rules.sysctl_allowed(match.group(1))


def edited(data, step):
    """The bytes of a file after an editing step. Raises EditError where they cannot be told."""
    text = data.decode("utf-8", "surrogateescape")
    if step["op"] == "settings":
        try:
            text = edit_settings(text, [tuple(pair) for pair in step["settings"]])
        except ConfError as error:
            raise EditError(error.what, error.line)
    elif step["op"] == "arguments":
        text = arguments.edit(step["path"], text, step["ensure"], step["remove"])
    else:
        text = assign(text, [tuple(pair) for pair in step["assignments"]])
    return text.encode("utf-8", "surrogateescape")
