# SPDX-License-Identifier: Apache-2.0
"""Looking before the first step: is every step possible, is the host still what the plan was made for, is there room.

Nothing is written, and nothing is run that writes.
"""

import os

try:
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils import kdo_txn_scope as scope
    from ansible.module_utils.kdo_edit import EditError
    from ansible.module_utils.kdo_txn_cmd import COMMANDS
    from ansible.module_utils.kdo_txn_expect import same_value
    from ansible.module_utils.kdo_txn_files import Refused, edited
    from ansible.module_utils.kdo_txn_fs import sha256
except ImportError:
    import kdo_txn_kit as kit
    import kdo_txn_scope as scope
    from kdo_edit import EditError
    from kdo_txn_cmd import COMMANDS
    from kdo_txn_expect import same_value
    from kdo_txn_files import Refused, edited
    from kdo_txn_fs import sha256

AGAIN = "look at the host and make a new plan"


def _stale(path, why="it is not what it was when the plan was made"):
    raise Refused("%s has changed" % path, why, AGAIN)


class Look(object):
    """Goes through the steps; ``results`` says for each whether it would change anything."""

    def __init__(self, tree, shop, change, state_dir):
        self.tree, self.shop, self.change, self.state_dir = tree, shop, change, state_dir
        self.family = kit.family_of(change)
        self._installed = None
        self.coming = set()  # packages that earlier steps install
        self.unmasked = set()  # units that earlier steps unmask
        self.room = {}  # device → [bytes, a path on it]

    def run(self):
        results = [getattr(self, "_" + step["op"].replace("-", "_"))(step) for step in self.change["steps"]]
        self.need(self.state_dir, scope.images_needed(self.tree, self.change) + 64 * 1024, real=True)
        self._room()
        return results

    @property
    def installed(self):
        """Packages by their status; asked only where a step is about packages, and once."""
        if self._installed is None:
            self._installed = self.family.installed(self.tree, self.shop)
        return self._installed

    # Steps: each returns True if it would change something.

    def _write(self, step):
        path, data = step["path"], step["text"].encode("utf-8")
        self.writable(path)
        self.need(path, len(data))
        now = self.tree.read(path)
        if now == data and self.tree.stat(path).st_mode & 0o7777 == int(step.get("mode", "0644"), 8):
            return False
        if step["before_sha256"] is None:
            if now is not None:
                _stale(path, "the plan was made when it was not there, and now it is")
        elif now is None or (sha256(now) != step["before_sha256"] and now != data):
            _stale(path)
        return True

    def _assign(self, step):
        path = step["path"]
        self.writable(path)
        now = self.tree.read(path)
        if now is None:
            if step["before_sha256"] != "from-package":
                _stale(path, "it is not there")
            return True
        self.need(path, len(now) + 4096)
        try:
            after = edited(now, step)
        except EditError as error:
            raise Refused(
                "%s cannot be edited safely" % path,
                str(error),
                "put the file in order at that line, then make a new plan",
            )
        if after == now:
            return False
        if step["before_sha256"] == "from-package":
            _stale(path, "it is there before the package that brings it")
        if sha256(now) != step["before_sha256"]:
            _stale(path)
        if step.get("after_sha256") not in (None, sha256(after)):
            raise Refused(
                "%s would not become what was planned" % path,
                "the edit gives other bytes than the plan predicts",
                AGAIN,
            )
        return True

    _settings = _arguments = _assign

    def _remove(self, step):
        self.writable(step["path"])
        now = self.tree.hash(step["path"])
        if now is None:
            return False
        if now != step["before_sha256"]:
            _stale(step["path"])
        return True

    def _package_install(self, step):
        missing = [name for name in step["names"] if self.installed.get(name) != "installed"]
        if not missing:
            return False
        self.family.look_install(self, missing)
        self.coming.update(missing)
        return True

    def _action(self, step):
        return kit.ACTIONS[step["name"]].look(self, self.family, step)

    def _service_disable(self, step):
        self.commands("unit-state", "unit-enable", "unit-disable")
        return self.shop.unit_state(step["unit"]) == "enabled"

    def _service_enable(self, step):
        self.commands("unit-state", "unit-enable", "unit-disable")
        if self.coming:
            return True
        state = self.shop.unit_state(step["unit"])
        if state.startswith("masked") and step["unit"] not in self.unmasked:
            raise Refused(
                "%s cannot be enabled" % step["unit"], "somebody masked it", "unmask it if that was not meant"
            )
        return state != "enabled"

    def _service_mask(self, step):
        self.commands("unit-state", "unit-mask")
        if self.shop.unit_state(step["unit"]) == "masked":
            return False
        path = scope.mask_of(step["unit"])
        if self.tree.stat(path) is not None:
            why = "the host has a unit of its own at %s, and the mask would stand in its place" % path
            raise Refused("%s cannot be masked" % step["unit"], why, "make it a drop-in, or disable without a mask")
        return True

    def _service_unmask(self, step):
        self.commands("unit-state", "unit-unmask")
        self.unmasked.add(step["unit"])
        return self.shop.unit_state(step["unit"]) == "masked"

    def _knob(self, step):
        now = self.tree.value(step["path"])
        if now is None:
            raise Refused("%s cannot be set" % step["path"], "this kernel does not have it", AGAIN)
        if same_value(step["path"], now, step["value"]):
            return False
        if not same_value(step["path"], now, step["before"]):
            _stale(step["path"], "its value is not what it was when the plan was made")
        return True

    # Helpers.

    def commands(self, *names):
        for name in names:
            package = COMMANDS[name].package
            if not self.shop.has(name) and not (package and self.coming):
                raise Refused(
                    "a command is missing",
                    "there is no %s" % COMMANDS[name].variants[0][0],
                    "install the package that brings it",
                )

    def writable(self, path):
        info = self.tree.stat(path)
        if info is not None and (info.st_mode & 0o170000) != 0o100000:
            raise Refused("%s cannot be changed" % path, "it is not a regular file", "replace it by a regular file")
        folder = self.tree.nearest(path)
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            raise Refused("%s cannot be changed" % path, "its filesystem is mounted read-only", "mount it for writing")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise Refused(
                "%s cannot be changed" % path, "its directory cannot be written", "run with the rights to do so"
            )

    def kernel(self, release):
        """The kernel of an image must be there."""
        kernels = ["/boot/vmlinuz-" + release, "/boot/vmlinux-" + release, "/lib/modules/%s/vmlinuz" % release]
        if not any(self.tree.is_file(path) for path in kernels):
            raise Refused("the capture image cannot be built", "there is no kernel %s" % kernels[0], AGAIN)

    def need(self, path, size, real=False):
        if real:
            folder = path
            while not os.path.isdir(folder):
                folder = os.path.dirname(folder)
        else:
            folder = self.tree.nearest(path)
        entry = self.room.setdefault(os.stat(folder).st_dev, [0, folder])
        entry[0] += size

    def _room(self):
        for size, folder in self.room.values():
            info = os.statvfs(folder)
            free = info.f_bavail * info.f_frsize
            if free < 2 * size:
                raise Refused(
                    "there is not enough room",
                    "%s has %d KiB free and %d KiB are wanted" % (folder, free // 1024, 2 * size // 1024),
                    "free some space",
                )
            if info.f_flag & os.ST_RDONLY:
                raise Refused(
                    "nothing can be written",
                    "the filesystem of %s is mounted read-only" % folder,
                    "mount it for writing",
                )
