# SPDX-License-Identifier: Apache-2.0
"""A login at a dump server: a key on this host, and the server's own key in known_hosts.

The private half is made here and stays here: nothing reads it, and where one is there already it is not even copied
into the picture. In the capture kernel nobody answers ssh's question about an unknown host, so its key is pinned before.
"""

import os
import re
import stat

try:
    from ansible.module_utils.kdo_ssh import (
        FOLDER,
        KNOWN_HOSTS,
        SYSTEM_KNOWN_HOSTS,
        fingerprint,
        host_keys,
        public_key,
    )
    from ansible.module_utils.kdo_txn_action import Action, StepError
    from ansible.module_utils.kdo_txn_files import Refused
    from ansible.module_utils.kdo_txn_fs import fsync_dir
except ImportError:
    from kdo_ssh import FOLDER, KNOWN_HOSTS, SYSTEM_KNOWN_HOSTS, fingerprint, host_keys, public_key
    from kdo_txn_action import Action, StepError
    from kdo_txn_files import Refused
    from kdo_txn_fs import fsync_dir

_KEY = re.compile(
    r"/root/\.ssh/(?!(?:authorized_keys|known_hosts|config|environment|rc)\d*\Z)[A-Za-z0-9][A-Za-z0-9_-]{0,99}\Z"
)
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,252}\Z")


class SshTarget(Action):
    """``key``: path of the private key that is to be there ("" = none is made). ``host_key``: "" = none is pinned."""

    members = ("server", "key", "host_key")

    def check(self, step):
        if not isinstance(step["server"], str) or not _SERVER.match(step["server"]):
            return "the server is not a host name or an address"
        if not isinstance(step["key"], str) or (step["key"] and not _KEY.match(step["key"])):
            return "the key is not a file in %s" % FOLDER
        if not isinstance(step["host_key"], str) or (
            step["host_key"] and public_key(step["host_key"]) != step["host_key"]
        ):
            return "the host key is not one public key"
        if not step["key"] and not step["host_key"]:
            return "there is nothing to do"
        return None

    def what(self, step):
        parts = ["make the key %s unless it is there" % step["key"]] if step["key"] else []
        parts += ["pin the host key of %s" % step["server"]] if step["host_key"] else []
        return ", ".join(parts)

    def reach(self, tree, family, step, add):
        # A key that is there is nobody's to change, and so it is in no picture.
        if step["key"] and tree.stat(step["key"]) is None:
            add("derived", step["key"], step["key"] + ".pub")
        if step["host_key"]:
            add("derived", KNOWN_HOSTS)  # ssh itself adds to it

    def look(self, look, family, step):
        changes = False
        if step["key"]:
            changes = self._look_key(look, step["key"])
        if step["host_key"] and self._look_known(look.tree, step):
            look.writable(KNOWN_HOSTS)
            look.need(KNOWN_HOSTS, len(look.tree.read(KNOWN_HOSTS) or b"") + 8192)
            changes = True
        return changes

    def _look_key(self, look, path):
        info = look.tree.stat(path)
        if info is None:
            look.commands("ssh-keygen")
            look.writable(path)
            look.need(path, 8192)
            if look.tree.stat(path + ".pub") is not None:
                raise Refused(
                    "the key %s cannot be made" % path, "its public half is there without it", "move %s.pub away" % path
                )
            return True
        if not stat.S_ISREG(info.st_mode):
            raise Refused("the key %s cannot be used" % path, "it is not a regular file", "name another in the policy")
        if info.st_mode & 0o077:
            raise Refused(
                "the key %s cannot be used" % path,
                "its mode is %04o: ssh refuses a key that others can read" % stat.S_IMODE(info.st_mode),
                "chmod 600 %s, if nobody has read it; else take it away" % path,
            )
        return False

    def _look_known(self, tree, step):
        """Whether the key has to be added. Another one of the same type is never written over or written beside."""
        known = [
            key for path in (KNOWN_HOSTS, SYSTEM_KNOWN_HOSTS) for key in host_keys(_text(tree, path), step["server"])
        ]
        if step["host_key"] in known:
            return False
        kind = step["host_key"].split()[0]
        others = [key for key in known if key.split()[0] == kind]
        if others:
            why = "known there is %s, the policy says %s" % (fingerprint(others[0]), fingerprint(step["host_key"]))
            fix = "find out which is right; ssh-keygen -R %s takes the known one away" % step["server"]
            raise Refused("%s has another %s key in known_hosts" % (step["server"], kind), why, fix)
        return True

    def do(self, doer, family, step):
        tree, made = doer.tree, False
        if (step["key"] or step["host_key"]) and tree.stat(FOLDER) is None:
            tree.make_dirs(os.path.dirname(FOLDER))
            os.mkdir(tree.real(FOLDER), 0o700)
            fsync_dir(os.path.dirname(tree.real(FOLDER)))
        if step["key"] and tree.stat(step["key"]) is None:
            self._make(doer, step["key"])
            made = True
        if step["host_key"] and self._look_known(tree, step):
            before = tree.read(KNOWN_HOSTS)
            data = before or b""
            data += b"\n" if data and not data.endswith(b"\n") else b""
            tree.write(KNOWN_HOSTS, data + _line(step), 0o600 if before is None else None)
            made = True
        return "changed" if made else "unchanged", self._said(tree, step)

    def _make(self, doer, path):
        real = doer.tree.real(path)
        output = doer.shop.must("ssh-keygen", "-C", "kdump@%s" % _host_name(), "-f", real)
        info = doer.tree.stat(path)
        if info is None or not stat.S_ISREG(info.st_mode) or stat.S_IMODE(info.st_mode) != 0o600:
            raise StepError("ssh-keygen ended well, but %s is not there as it must be" % path, output)
        for name in (real, real + ".pub"):
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        fsync_dir(os.path.dirname(real))

    def _said(self, tree, step):
        public = public_key(_text(tree, step["key"] + ".pub").strip()) if step["key"] else ""
        return "%s of %s must be in %s's authorized_keys" % (public, step["key"], step["server"]) if public else ""

    def undo_after(self, undo, step):
        """Where known_hosts has got more lines since, it is left; then only our line goes."""
        item = next((item for item in undo.manifest["items"] if item["path"] == KNOWN_HOSTS), None)
        if not step["host_key"] or item is None or KNOWN_HOSTS not in undo.leave:
            return
        ours, before = _line(step), b""
        if item["kind"] == "file":
            with open(os.path.join(undo.tx.before, item["image"]), "rb") as stream:
                before = stream.read()
        data = undo.tree.read(KNOWN_HOSTS) or b""
        rows = data.splitlines(True)
        if ours in rows and ours not in before.splitlines(True):
            rows.remove(ours)
            undo.tree.write(KNOWN_HOSTS, b"".join(rows))
            undo.note(KNOWN_HOSTS)


def _line(step):
    return ("%s %s\n" % (step["server"], step["host_key"])).encode("ascii")


def _text(tree, path):
    return (tree.read(path) or b"").decode("utf-8", "replace")


def _host_name():
    return re.sub(r"[^A-Za-z0-9.-]", "-", os.uname()[1])[:100]
