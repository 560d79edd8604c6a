# SPDX-License-Identifier: Apache-2.0
"""What a change can reach on a host, and the picture taken of all of it before the first step.

The commands that a plan may run are known, so what they write is known too. Everything in reach is recorded before the
first step (content where it can be put back, state where it must be asked for), so undoing needs nothing but the picture.
"""

import fnmatch
import os
import posixpath
import re

try:
    from ansible.module_utils import kdo_txn_doc as doc
    from ansible.module_utils.kdo_edit import EditError, read_assignments
    from ansible.module_utils.kdo_txn_fs import fsync_dir
except ImportError:
    import kdo_txn_doc as doc
    from kdo_edit import EditError, read_assignments
    from kdo_txn_fs import fsync_dir

CAPTURE = "/var/lib/kdump"
CAPTURE_SYSCTL = "/etc/kdump/sysctl.conf"
PACKAGE_SNIPPET = "/etc/default/grub.d/kdump-tools.cfg"
DPKG_STATUS = "/var/lib/dpkg/status"
PANIC_ON_OOPS = "/proc/sys/kernel/panic_on_oops"
# Links that enabling the unit makes: systemd's, and those of its SysV script.
UNIT_LINKS = {
    "kdump-tools.service": (
        "/etc/systemd/system/basic.target.wants/kdump-tools.service",
        "/etc/systemd/system/multi-user.target.wants/kdump-tools.service",
        "/etc/systemd/system/sysinit.target.wants/kdump-tools.service",
    )
}
_SERVICES = ("service-enable", "service-disable")
# What these touch in /var/lib/kdump is put back, also when a capture kernel is loaded again by an undo.
_CAPTURE_STEPS = {"kdump-build-image", "kdump-reload", "kdump-unload"}
RC_LINKS = [("/etc/rc%s.d" % level, "[SK]??kdump-tools") for level in "0123456S"]


def operations(change):
    """Names of the steps, actions by their own name."""
    return [step["name"] if step["op"] == "action" else step["op"] for step in change["steps"]]


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


def packages(tree):
    """``{name: status}`` of dpkg, such as "installed" or "config-files"."""
    found, name = {}, ""
    try:
        stream = open(tree.real(DPKG_STATUS), "rb")
    except OSError:
        return {}
    with stream:
        for row in stream:
            if row.startswith(b"Package:"):
                name = row[8:].decode("ascii", "replace").strip()
            elif row.startswith(b"Status:"):
                status = row.decode("ascii", "replace").split()[-1]
                if found.get(name) != "installed":  # another architecture of the same name
                    found[name] = status
    return found


def _core_dirs(tree, change):
    """Where kdump-config notes its last kexec command: KDUMP_COREDIR, before and after the change."""
    found = ["/var/crash"]
    data = tree.read(doc.KDUMP_DEFAULTS) or b""
    try:
        value = read_assignments(data.decode("utf-8", "surrogateescape")).get("KDUMP_COREDIR", (None, 0))[0]
    except EditError:
        value = None
    candidates = [value]
    for step in change["steps"]:
        candidates += [pair[1] for pair in step.get("assignments", ()) if pair[0] == "KDUMP_COREDIR"]
    for path in candidates:
        if path and re.match(r"(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+\Z", path) and posixpath.normpath(path) == path:
            found.append(path)
    return sorted(set(found))


def reach(tree, change):
    """``({path: kind}, [trees])``. Kinds: config (somebody may have edited it since), grub, derived (made by commands)."""
    names = operations(change)
    found, trees = {}, []

    def add(kind, *paths):
        for path in paths:
            found.setdefault(path, kind)

    for step in change["steps"]:
        if step["op"] in ("write", "assign", "remove"):
            add("config", step["path"])
        if step["op"] in _SERVICES:
            add("derived", *UNIT_LINKS[step["unit"]])
    installs = "package-install" in names
    if installs:
        add("derived", doc.KDUMP_DEFAULTS, PACKAGE_SNIPPET, *UNIT_LINKS["kdump-tools.service"])
        for path in tree.walk(CAPTURE) or () if tree.stat(CAPTURE) is not None else ():
            if path != CAPTURE and not path.startswith(CAPTURE + "/initramfs-tools/"):
                add("derived", path)
    if {"grub-trial", "grub-regenerate"} & set(names):
        add("derived", doc.GRUB_CUSTOM)
    if installs or "grub-regenerate" in names:
        add("grub", doc.GRUB_CONFIG)
        add("derived", doc.GRUB_CONFIG + ".new")
    if installs or _CAPTURE_STEPS & set(names):
        for release in sorted(
            {running_release(tree)} | {step["release"] for step in change["steps"] if "release" in step}
        ):
            for name in ("initrd.img-%s", "initrd.img-%s.new", "size_initrd.img-%s", "latest_sysctls-%s"):
                add("derived", "%s/%s" % (CAPTURE, name % release))
        add("derived", CAPTURE + "/vmlinuz", CAPTURE + "/initrd.img")
        trees.append(CAPTURE + "/initramfs-tools")
        for folder in _core_dirs(tree, change):
            add("derived", folder + "/kexec_cmd")
            if tree.stat(folder) is None:
                add("derived", folder)
    return found, trees


def images_needed(tree, change):
    """Bytes that the images will take as copies."""
    found, trees = reach(tree, change)
    paths = [path for path in found if not _keeps_inode(path)]
    for path in trees:
        paths += (tree.walk(path) or []) if tree.stat(path) is not None else []
    infos = [tree.stat(path) for path in paths]
    return sum(info.st_size for info in infos if info is not None)


def _keeps_inode(path):
    """Capture images are large, and made anew under another name each time: a hard link keeps the old one."""
    return fnmatch.fnmatch(path, CAPTURE + "/initrd.img-*")


def _taken(tree, folder, pattern):
    try:
        return sorted(folder + "/" + name for name in os.listdir(tree.real(folder)) if fnmatch.fnmatch(name, pattern))
    except OSError:
        return []


def take(tree, shop, tx, number, change):
    """Take the picture and make it durable. Returns nothing; the manifest is the picture."""
    names = operations(change)
    found, trees = reach(tree, change)
    kinds, kept_trees = dict(found), []
    for path in trees:
        below = tree.walk(path) if tree.stat(path) is not None else [path]
        if below is not None:  # too much to keep: it is a copy of /etc/initramfs-tools, remade at every build
            kept_trees.append(path)
            for entry in below:
                kinds.setdefault(entry, "derived")
    items, folders = [], []
    for count, path in enumerate(sorted(kinds)):
        item = tree.image(path, tx.before, count, _keeps_inode(path))
        item["group"] = kinds[path]
        items.append(item)
        folders += [folder for folder in tree.missing_dirs(os.path.dirname(path)) if folder not in folders]
    links = {}
    if "package-install" in names or set(_SERVICES) & set(names):
        for folder, pattern in RC_LINKS:
            links[folder + "/" + pattern] = _taken(tree, folder, pattern)
            folders += [missing for missing in tree.missing_dirs(folder) if missing not in folders]
            for path in links[folder + "/" + pattern]:
                item = tree.describe(path)
                item["group"] = "derived"
                items += [item] if item["kind"] == "link" else []
    knobs = {step["path"]: tree.value(step["path"]) for step in change["steps"] if step["op"] == "knob"}
    if ("package-install" in names or _CAPTURE_STEPS & set(names)) and tree.value(PANIC_ON_OOPS) is not None:
        knobs.setdefault(PANIC_ON_OOPS, tree.value(PANIC_ON_OOPS))  # kdump-config load sets it
    units = {}
    for step in change["steps"]:
        if step["op"] in _SERVICES:
            units[step["unit"]] = shop.unit_state(step["unit"])
    fsync_dir(tx.before)
    tx.write_json(
        "manifest.json",
        {
            "seq": number,
            "boot_id": boot_id(tree),
            "items": items,
            "trees": kept_trees,
            "folders": folders,
            "links": links,
            "knobs": knobs,
            "units": units,
            "loaded": loaded(tree),
            "packages": packages(tree) if "package-install" in names else {},
        },
    )
