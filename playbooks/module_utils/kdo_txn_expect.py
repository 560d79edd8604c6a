# SPDX-License-Identifier: Apache-2.0
"""What must be true after the steps. A failure is said without quoting what is in a file."""

import re

try:
    from ansible.module_utils.kdo_txn_host import loaded
except ImportError:
    from kdo_txn_host import loaded

# Sections of grub.cfg that the configuration of this system does not reach: other systems, and what people wrote.
_FOREIGN = re.compile(r"/(30_os-prober|30_uefi-firmware|40_custom|41_custom)\b")
_RECOVERY = ("single", "recovery")
_LOADED = ("/sys/kernel/kexec_crash_loaded", "/sys/kernel/kexec/crash_loaded")


def kernel_lines(text, prefix="linux"):
    """``[(line number, words)]`` of the boot entries that take this system's arguments."""
    found, foreign = [], False
    for number, row in enumerate(text.split("\n"), 1):
        if row.startswith("### BEGIN "):
            foreign = bool(_FOREIGN.search(row))
        elif row.startswith("### END "):
            foreign = False
        words = row.split()
        if not foreign and words and words[0] == prefix and not any(word in words for word in _RECOVERY):
            found.append((number, words[1:]))
    return found


def _words(tree, item):
    data = tree.read(item["path"])
    if data is None:
        return "%s is not there" % item["path"]
    lines = kernel_lines(data.decode("utf-8", "replace"), item["line_prefix"])
    if not lines:
        return "%s has no line that begins with '%s'" % (item["path"], item["line_prefix"])
    for number, words in lines:
        where = "%s line %d" % (item["path"], number)
        for key, wanted in sorted(item.get("once", {}).items()):
            there = [word for word in words if word.startswith(key)]
            if len(there) != 1:
                return "%s has %d words that begin with %s, not one" % (where, len(there), key)
            if there[0] != wanted:
                return "%s does not have %s" % (where, wanted)
        for wanted in item.get("present", []):
            if wanted not in words:
                return "%s does not have %s" % (where, wanted)
        for unwanted in item.get("absent", []):
            if any(word == unwanted or (unwanted.endswith("=") and word.startswith(unwanted)) for word in words):
                return "%s still has %s" % (where, unwanted)
    return None


def same_value(path, one, other):
    if one == other:
        return True
    if "/module/" in path:
        truth = {"Y": True, "y": True, "1": True, "N": False, "n": False, "0": False}
        return one in truth and other in truth and truth[one] == truth[other]
    return False


def check(tree, item):
    """None, or why the expectation is not met."""
    path = item["path"]
    if item["kind"] == "words":
        return _words(tree, item)
    if item["kind"] == "sha256":
        return None if tree.hash(path) == item["value"] else "%s does not have the content that was planned" % path
    value = loaded(tree) if path in _LOADED else tree.value(path)
    if value is None:
        return "%s is not there" % path
    if same_value(path, value, item["value"]):
        return None
    return "%s is %s, not %s" % (path, value[:100], item["value"])
