# SPDX-License-Identifier: Apache-2.0
"""Questions to the running kernel that more than one module has."""

import os


def running_release(tree):
    return tree.value("/proc/sys/kernel/osrelease") or os.uname().release


def boot_id(tree):
    return tree.value("/proc/sys/kernel/random/boot_id") or ""


def loaded(tree):
    """What the kernel says: "1" or "0", or None where it cannot load a capture kernel."""
    for path in ("/sys/kernel/kexec/crash_loaded", "/sys/kernel/kexec_crash_loaded"):
        value = tree.value(path)
        if value is not None:
            return value
    return None


def reload_impossible(tree, argument="crashkernel="):
    """None, or why this kernel will not take a capture kernel now. ``argument``: what its loader asks for."""
    if tree.value("/proc/sys/kernel/kexec_load_disabled") == "1":
        return "kernel.kexec_load_disabled is 1, which lasts until the next boot"
    limit = tree.value("/proc/sys/kernel/kexec_load_limit_panic")
    if limit is not None and limit.isdigit() and int(limit) < 2:
        return "kernel.kexec_load_limit_panic leaves no load to put the old one back with"
    size = tree.value("/sys/kernel/kexec/crash_size") or tree.value("/sys/kernel/kexec_crash_size")
    if size == "0":
        return "no memory is reserved for it in this boot"
    if argument not in (tree.value("/proc/cmdline") or ""):
        return "this boot has no %s argument, without which its loader refuses" % argument
    if loaded(tree) is None:
        return "this kernel has no support for it"
    return None
