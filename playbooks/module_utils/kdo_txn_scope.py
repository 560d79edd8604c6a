# SPDX-License-Identifier: Apache-2.0
"""What a change can reach on a host, and the picture taken of all of it before the first step.

The commands that a plan may run are known, so what they write is known too. Everything in reach is recorded before the
first step (content where it can be put back, state where it must be asked for), so undoing needs nothing but the picture.
"""

import fnmatch
import os

try:
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils.kdo_txn_files import EDITS
    from ansible.module_utils.kdo_txn_fs import fsync_dir
    from ansible.module_utils.kdo_txn_host import boot_id, loaded, running_release
except ImportError:
    import kdo_txn_kit as kit
    from kdo_txn_files import EDITS
    from kdo_txn_fs import fsync_dir
    from kdo_txn_host import boot_id, loaded, running_release


def mask_of(unit):
    """The path that ``systemctl mask`` makes a link to /dev/null."""
    return "/etc/systemd/system/" + unit


class Reach(object):
    """Collects what a change can reach. Kinds of a path: config (somebody may have edited it since), anew (a command can
    make it again), derived (made by commands), later (the family's service makes it after we are done, and nobody else)."""

    def __init__(self, change):
        self.change, self.found, self.trees = change, {}, []

    def __call__(self, kind, *paths):
        for path in paths:
            self.found.setdefault(path, kind)


def installs(change):
    return any(step["op"] == "package-install" for step in change["steps"])


def reach(tree, change):
    """``({path: kind}, [trees])`` of all that the change may write."""
    family, add = kit.family_of(change), Reach(change)
    for step in change["steps"]:
        if step["op"] in ("write", "remove") + EDITS:
            add("config", step["path"])
            family.edit_reach(tree, step, add)
        if step["op"] in kit.SERVICES:
            add("derived", *family.units[step["unit"]])
        if step["op"] in ("service-mask", "service-unmask"):
            add("derived", mask_of(step["unit"]))
    if installs(change):
        family.install_reach(tree, add)
        family.capture_reach(tree, change, [running_release(tree)], add)
    for action, step in kit.actions(change["steps"]):
        action.reach(tree, family, step, add)
    return add.found, sorted(set(add.trees))


def images_needed(tree, change):
    """Bytes that the images will take as copies."""
    found, trees = reach(tree, change)
    paths = [path for path in found if not kit.family_of(change).keeps_inode(path)]
    for path in trees:
        paths += (tree.walk(path) or []) if tree.stat(path) is not None else []
    infos = [tree.stat(path) for path in paths]
    return sum(info.st_size for info in infos if info is not None)


def _taken(tree, folder, pattern):
    try:
        return sorted(folder + "/" + name for name in os.listdir(tree.real(folder)) if fnmatch.fnmatch(name, pattern))
    except OSError:
        return []


def take(tree, shop, tx, number, change):
    """Take the picture and make it durable. Returns nothing; the manifest is the picture."""
    family = kit.family_of(change)
    found, trees = reach(tree, change)
    kinds, kept_trees = dict(found), []
    for path in trees:
        below = tree.walk(path) if tree.stat(path) is not None else [path]
        if below is not None:  # too much to keep: it is a copy that is remade at every build
            kept_trees.append(path)
            for entry in below:
                kinds.setdefault(entry, "derived")
    items, folders = [], []
    for count, path in enumerate(sorted(kinds)):
        item = tree.image(path, tx.before, count, family.keeps_inode(path))
        item["group"] = kinds[path]
        items.append(item)
        folders += [folder for folder in tree.missing_dirs(os.path.dirname(path)) if folder not in folders]
    links = {}
    services = [step for step in change["steps"] if step["op"] in kit.SERVICES]
    if installs(change) or services:
        for folder, pattern in family.script_links:
            links[folder + "/" + pattern] = _taken(tree, folder, pattern)
            folders += [missing for missing in tree.missing_dirs(folder) if missing not in folders]
            for path in links[folder + "/" + pattern]:
                item = tree.describe(path)
                item["group"] = "derived"
                items += [item] if item["kind"] == "link" else []
    knobs = {step["path"]: tree.value(step["path"]) for step in change["steps"] if step["op"] == "knob"}
    if installs(change) or any(action.captures for action, _ in kit.actions(change["steps"])):
        for path in family.kept_knobs:
            if tree.value(path) is not None:
                knobs.setdefault(path, tree.value(path))
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
            "units": {step["unit"]: shop.unit_state(step["unit"]) for step in services},
            "loaded": loaded(tree),
            "packages": family.installed(tree, shop) if installs(change) else {},
        },
    )
