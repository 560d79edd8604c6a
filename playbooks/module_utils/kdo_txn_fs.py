# SPDX-License-Identifier: Apache-2.0
"""Files on a host: read without following links, replace atomically, keep images, put them back.

Every path is one of the running system ("/etc/…"); `Tree` finds it below a root, which is "/" except in tests.
Everything durable is fsync'ed before the step that relies on it is journaled.
"""

import errno
import hashlib
import os
import stat

LARGEST_COPY = 16 * 1024 * 1024


class FileError(Exception):
    """A file is not what it may be. The text names the path and the reason."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def fsync_dir(path):
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path, data, mode, owner=None, times=None):
    """Replace `path` in one step. The temporary name is fixed, so that what a kill leaves behind is found again."""
    temporary = temporary_name(path)
    remove_quietly(temporary)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        if owner is not None and (os.fstat(handle).st_uid, os.fstat(handle).st_gid) != tuple(owner):
            os.fchown(handle, owner[0], owner[1])
        os.fchmod(handle, mode)
        if times is not None:
            os.utime(handle, ns=times)
        os.fsync(handle)
    finally:
        os.close(handle)
    os.rename(temporary, path)
    fsync_dir(os.path.dirname(path))


def temporary_name(path):
    return os.path.join(os.path.dirname(path), ".%s.kdo-new" % os.path.basename(path))


def remove_quietly(path):
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise


class Tree(object):
    def __init__(self, root="/"):
        self.root = os.path.abspath(root)

    def real(self, path):
        return path if self.root == "/" else self.root + path

    def stat(self, path):
        try:
            return os.lstat(self.real(path))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def exists(self, path):
        return os.path.exists(self.real(path))

    def is_file(self, path):
        info = self.stat(path)
        return info is not None and stat.S_ISREG(info.st_mode)

    def read(self, path, longest=LARGEST_COPY):
        """The bytes of a regular file, or None if it is not there. A link in its place is an error."""
        info = self.stat(path)
        if info is None:
            return None
        if not stat.S_ISREG(info.st_mode):
            raise FileError("%s is not a regular file" % path)
        handle = os.open(self.real(path), os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as stream:
            data = stream.read(longest + 1)
        if len(data) > longest:
            raise FileError("%s is larger than %d bytes" % (path, longest))
        return data

    def hash(self, path):
        """SHA-256 of a file, "link:…" of a link, "dir" of a directory, None if there is nothing."""
        info = self.stat(path)
        if info is None:
            return None
        if stat.S_ISLNK(info.st_mode):
            return "link:" + os.readlink(self.real(path))
        if stat.S_ISDIR(info.st_mode):
            return "dir"
        digest = hashlib.sha256()
        handle = os.open(self.real(path), os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()

    def value(self, path):
        """One value of the kernel, stripped; None if there is no such file."""
        try:
            with open(self.real(path), "rb") as stream:
                return stream.read(4096).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def set_value(self, path, value):
        data = (value + "\n").encode("ascii")
        if self.root != "/":  # an ordinary file stands for the kernel's; one write has to replace all of it
            data = data.ljust(self.stat(path).st_size, b"\n")
        handle = os.open(self.real(path), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def write(self, path, data, mode=None):
        """Atomic. A file that is there keeps its owner, and its mode unless one is given; a new one is root's, 0644."""
        info = self.stat(path)
        if info is not None and not stat.S_ISREG(info.st_mode):
            raise FileError("%s is not a regular file" % path)
        folder = os.path.dirname(path)
        if self.stat(folder) is None:
            self.make_dirs(folder)
        if mode is None:
            mode = stat.S_IMODE(info.st_mode) if info is not None else 0o644
        write_whole(self.real(path), data, mode, (info.st_uid, info.st_gid) if info is not None else None)

    def remove(self, path):
        remove_quietly(self.real(path))
        if self.stat(os.path.dirname(path)) is not None:
            fsync_dir(os.path.dirname(self.real(path)))

    def make_dirs(self, folder):
        missing = self.missing_dirs(folder)
        for path in missing:
            os.mkdir(self.real(path), 0o755)
            fsync_dir(os.path.dirname(self.real(path)))

    def missing_dirs(self, folder):
        """Directories from the outermost in that would have to be made for `folder` to be there."""
        missing = []
        while folder != "/" and self.stat(folder) is None:
            missing.insert(0, folder)
            folder = os.path.dirname(folder)
        return missing

    def nearest(self, path):
        """The real path of the closest directory that is there."""
        folder = os.path.dirname(path)
        while folder != "/" and self.stat(folder) is None:
            folder = os.path.dirname(folder)
        return self.real(folder)

    # Images: what a path was, so that it can be so again.

    def describe(self, path, content=True):
        """What is at `path`: kind, mode, owner, times, and the target or (with `content`) the hash."""
        info = self.stat(path)
        if info is None:
            return {"path": path, "kind": "absent"}
        item = {
            "path": path,
            "mode": stat.S_IMODE(info.st_mode),
            "uid": info.st_uid,
            "gid": info.st_gid,
            "mtime_ns": info.st_mtime_ns,
        }
        if stat.S_ISLNK(info.st_mode):
            item.update(kind="link", target=os.readlink(self.real(path)))
        elif stat.S_ISDIR(info.st_mode):
            item.update(kind="dir")
        elif stat.S_ISREG(info.st_mode):
            item.update(kind="file", size=info.st_size)
            if content:
                item["sha256"] = self.hash(path)
        else:
            raise FileError("%s is neither a file, a link nor a directory" % path)
        return item

    def image(self, path, store, number, keep_inode=False):
        """`describe`, with the content kept in `store`: a hard link for what is only ever replaced whole, else a copy."""
        item = self.describe(path)
        if item["kind"] != "file":
            return item
        name = "%03d" % number
        target = os.path.join(store, name)
        if keep_inode:
            try:
                os.link(self.real(path), target)
                item.update(image=name, linked=True)
                return item
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                    raise
        handle = os.open(self.real(path), os.O_RDONLY | os.O_NOFOLLOW)
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        digest = hashlib.sha256()
        with os.fdopen(handle, "rb") as stream, os.fdopen(out, "wb") as copy:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
                copy.write(block)
            copy.flush()
            os.fsync(copy.fileno())
        if digest.hexdigest() != item["sha256"]:
            raise FileError("%s changed while it was read" % path)
        item["image"] = name
        return item

    def same(self, item):
        """Is the path now what `item` says, to the nanosecond?"""
        info = self.stat(item["path"])
        if item["kind"] == "absent" or info is None:
            return item["kind"] == "absent" and info is None
        now = self.describe(item["path"], content=False)
        if now["kind"] == item["kind"] == "dir":
            return all(now[key] == item[key] for key in ("mode", "uid", "gid"))
        if any(now.get(key) != item.get(key) for key in ("kind", "uid", "gid", "mtime_ns", "target", "size")):
            return False
        return item["kind"] == "link" or (now["mode"] == item["mode"] and self.hash(item["path"]) == item["sha256"])

    def restore(self, item, store):
        """Make the path what `item` says. Doing it twice, or after being killed in the middle, ends the same."""
        path = item["path"]
        real = self.real(path)
        if self.stat(os.path.dirname(path)) is not None:
            remove_quietly(temporary_name(real))
        if self.same(item):
            return False
        info = self.stat(path)
        if info is not None and stat.S_ISDIR(info.st_mode) and item["kind"] != "dir":
            return self._remove_dir(item, real)
        if item["kind"] == "absent":
            self.remove(path)
            return True
        self.make_dirs(os.path.dirname(path))
        if item["kind"] == "dir":
            if info is None:
                os.mkdir(real, 0o700)
            os.chown(real, item["uid"], item["gid"])
            os.chmod(real, item["mode"])
        elif item["kind"] == "link":
            temporary = temporary_name(real)
            os.symlink(item["target"], temporary)
            os.lchown(temporary, item["uid"], item["gid"])
            os.utime(temporary, ns=(item["mtime_ns"], item["mtime_ns"]), follow_symlinks=False)
            os.rename(temporary, real)
        else:
            self._restore_file(item, real, os.path.join(store, item["image"]))
        fsync_dir(os.path.dirname(real))
        return True

    def _restore_file(self, item, real, image):
        times = (item["mtime_ns"], item["mtime_ns"])
        if item.get("linked"):
            temporary = temporary_name(real)
            if self.stat(item["path"]) is not None and os.path.samefile(real, image):
                temporary = real
            else:
                os.link(image, temporary)
            os.chown(temporary, item["uid"], item["gid"])
            os.chmod(temporary, item["mode"])
            os.utime(temporary, ns=times)
            if temporary != real:
                os.rename(temporary, real)
            return
        with open(image, "rb") as stream:
            data = stream.read()
        if sha256(data) != item["sha256"]:
            raise FileError("the image kept of %s is damaged" % item["path"])
        write_whole(real, data, item["mode"], (item["uid"], item["gid"]), times)

    def _remove_dir(self, item, real):
        """A directory that was not there before: only an empty one is ours to remove."""
        try:
            os.rmdir(real)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if item["kind"] != "absent":
                raise FileError("%s has become a directory that is not empty" % item["path"])
            return False
        fsync_dir(os.path.dirname(real))
        return True

    def walk(self, path, most=2000):
        """`path` and everything below it, parents first; never through links. None when there is too much of it."""
        found = [path]
        for folder, folders, names in os.walk(self.real(path)):
            below = folder[len(self.real(path)) :]
            found += [path + below + "/" + name for name in sorted(folders + names)]
            if len(found) > most:
                return None
        return found
