# SPDX-License-Identifier: Apache-2.0
"""Where transactions are kept: one directory each, an append-only journal, one lock for the host.

The journal decides. A transaction without ``begin`` touched nothing; one with ``begin`` and without an end is undone by
whoever comes next; ``commit`` makes it stay.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import time

try:
    from ansible.module_utils.kdo_txn_fs import fsync_dir, write_whole
except ImportError:
    from kdo_txn_fs import fsync_dir, write_whole

KEEP = 10

ENDS = {"undo-done": "undone", "rolled-back": "rolled-back", "given-up": "given-up", "commit": "committed"}
OPEN = ("unfinished", "undo-incomplete", "rollback-unfinished")


class Busy(Exception):
    """Another transaction is running."""


class StateError(Exception):
    """The state directory is not one that root alone could have written."""


def make_private(path):
    """Like ``mkdir -p`` with 0700 for what is made; every new entry is durable."""
    missing = []
    while not os.path.isdir(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    for folder in missing:
        try:
            os.mkdir(folder, 0o700)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        fsync_dir(os.path.dirname(folder))


class Lock(object):
    """flock on ``state_dir/lock``. A command that we started and that outlives us keeps it (see Runner)."""

    def __init__(self, state_dir, wait=0, create=True):
        self.path = os.path.join(state_dir, "lock")
        self.wait = wait
        self.create = create
        self.handle = None

    def __enter__(self):
        flags = os.O_RDWR | os.O_CREAT if self.create else os.O_RDONLY
        try:
            self.handle = os.open(self.path, flags | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if self.create or error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return self
        until = time.monotonic() + self.wait
        while True:
            try:
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() >= until:
                    os.close(self.handle)
                    self.handle = None
                    raise Busy()
                time.sleep(0.1)

    def __exit__(self, *_):
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


class Transaction(object):
    def __init__(self, path):
        self.path = path
        self.name = os.path.basename(path)
        self.before = os.path.join(path, "before")
        self._journal = os.path.join(path, "journal")
        self._manifest = None

    def read_json(self, name):
        with open(os.path.join(self.path, name), "rb") as stream:
            return json.loads(stream.read().decode("utf-8"))

    def write_json(self, name, value):
        data = json.dumps(value, sort_keys=True).encode("utf-8")
        write_whole(os.path.join(self.path, name), data, 0o600)

    @property
    def manifest(self):
        if self._manifest is None:
            self._manifest = self.read_json("manifest.json")
        return self._manifest

    @property
    def change(self):
        return self.read_json("change.json")

    def records(self):
        """Every whole record. A last line that power loss cut short never happened."""
        try:
            with open(self._journal, "rb") as stream:
                rows = stream.read().split(b"\n")
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []
            raise
        found = []
        for row in rows[:-1]:
            try:
                record = json.loads(row.decode("utf-8"))
            except ValueError:
                break
            if not isinstance(record, dict):
                break
            found.append(record)
        return found

    def append(self, event, **more):
        more.update(event=event, at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        row = (json.dumps(more, sort_keys=True) + "\n").encode("utf-8")
        handle = os.open(self._journal, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            data = b""
            while True:
                block = os.read(handle, 1 << 20)
                if not block:
                    break
                data += block
            whole = data.rfind(b"\n") + 1
            if whole != len(data):
                os.ftruncate(handle, whole)
            os.lseek(handle, whole, os.SEEK_SET)
            os.write(handle, row)
            os.fsync(handle)
        finally:
            os.close(handle)
        if not data:
            fsync_dir(self.path)

    def last(self, event):
        found = [record for record in self.records() if record["event"] == event]
        return found[-1] if found else None

    def state(self):
        state = "new"
        for record in self.records():
            event = record["event"]
            if event == "begin":
                state = "unfinished"
            elif event == "rollback-start":
                state = "rollback-unfinished"
            elif event == "undo-incomplete" and state == "unfinished":
                state = "undo-incomplete"
            elif event in ENDS:
                state = ENDS[event]
        return state

    def discard(self):
        """Under another name first: half a transaction must not be taken for a whole one."""
        folder = os.path.dirname(self.path)
        gone = os.path.join(folder, ".gone-" + self.name)
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(self.path, gone)
        fsync_dir(folder)
        shutil.rmtree(gone)

    def drop_images(self):
        """After an undo nothing needs them; a capture image kept by a hard link would hold its space."""
        shutil.rmtree(self.before, ignore_errors=True)


class Store(object):
    def __init__(self, path):
        self.path = path
        self.tx = os.path.join(path, "tx")

    def check(self):
        """What is in here is obeyed by root, so nobody else may be able to write it."""
        for path in (self.path, self.tx):
            try:
                info = os.lstat(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR):
                    continue
                raise
            if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
                raise StateError("%s is not a directory that only we can write" % path)

    def all(self):
        """Oldest first."""
        try:
            names = os.listdir(self.tx)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return []
            raise
        found = [Transaction(os.path.join(self.tx, name)) for name in names if re.match(r"[0-9]{8}T[0-9]{6}", name)]
        return sorted(found, key=lambda tx: (self._number(tx), tx.name))

    @staticmethod
    def _number(tx):
        try:
            return tx.manifest["seq"]
        except (OSError, ValueError, KeyError):
            return 1 << 60

    def open(self, change):
        """A new directory with the change in it. Nothing on the host depends on it before ``begin``."""
        make_private(self.tx)
        number = max([self._number(tx) for tx in self.all() if self._number(tx) < 1 << 60] or [0]) + 1
        base = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + change["id"][:8]
        for extra in range(1000):
            path = os.path.join(self.tx, base if not extra else "%s-%d" % (base, extra))
            try:
                os.mkdir(path, 0o700)
                break
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
        else:
            raise StateError("no name is left for a new transaction")
        tx = Transaction(path)
        os.mkdir(tx.before, 0o700)
        fsync_dir(self.tx)
        tx.write_json("change.json", change)
        return tx, number

    def newest(self, state):
        found = [tx for tx in self.all() if tx.state() == state]
        return found[-1] if found else None

    def unfinished(self):
        return [tx for tx in reversed(self.all()) if tx.state() in OPEN or tx.state() == "new"]

    def prune(self):
        for name in os.listdir(self.tx):
            if name.startswith(".gone-"):
                shutil.rmtree(os.path.join(self.tx, name), ignore_errors=True)
        for tx in self.all():
            if tx.state() in ("undone", "rolled-back"):
                tx.drop_images()
        for tx in self.all()[:-KEEP]:
            if tx.state() not in OPEN:
                tx.discard()
