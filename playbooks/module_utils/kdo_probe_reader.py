# SPDX-License-Identifier: Apache-2.0
"""How the probe reads: files below a root, and a few commands. It opens for reading only and never raises.

Below a root other than ``/`` symbolic links are resolved by hand, as if that root were the whole world, so a tree
from a stranger cannot make the probe read anything outside of it.
"""

import base64
import errno
import fnmatch
import os
import re
import stat
import subprocess

BIN_DIRS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/sbin", "/usr/local/bin")
ENVIRONMENT = {
    "LC_ALL": "C",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_LOG_LEVEL": "err",
}
MAX_LINKS = 40
MAX_LISTING = 20000
MAX_RECORD = 4 << 20
LINE = 512
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")


def clean(value, limit=LINE):
    """One line of printable text: control characters become ``?``, the rest is cut at ``limit``."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return _CONTROL.sub("?", str(value).strip("\0 \t\r\n"))[:limit]


def whole(value):
    """A whole number that fits a document, or ``None``."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else None


def reason(error):
    """Why something could not be read, in words that do not depend on the locale."""
    number = getattr(error, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return "permission denied"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return "not there"
    if number == errno.ELOOP:
        return "too many symbolic links"
    if number == errno.EISDIR:
        return "not a file"
    return clean(getattr(error, "strerror", None) or error.__class__.__name__, 100)


class Reader(object):
    """Reads below ``root``; what could not be read is in ``unseen``, what was read is in ``recorded`` if wanted."""

    def __init__(self, root="/", live=None, record=False):
        self.root = os.path.abspath(root)
        self.live = self.root == "/" if live is None else bool(live)
        self.record = record
        self.recorded = {}
        self.unseen = []
        self._noted = set()
        self._links = {}
        self._size = 0

    # What could not be seen

    def note(self, what, why):
        """Say once that something that matters could not be seen."""
        if what not in self._noted and len(self.unseen) < 200:
            self._noted.add(what)
            self.unseen.append({"what": clean(what), "why": clean(why, 200)})

    # Paths

    def _physical(self, logical):
        return logical if self.root == "/" else self.root + logical

    def _link(self, logical):
        if logical in self._links:
            return self._links[logical]
        target = None
        if logical not in ("/proc/self", "/proc/thread-self") or not self.live:
            try:
                target = os.readlink(self._physical(logical))
            except (OSError, ValueError):
                target = None
        self._links[logical] = target
        if target is not None:
            self._keep(logical, {"type": "link", "text": clean(target, 4096)})
        return target

    def resolve(self, path, follow=True):
        """The path with every symbolic link followed inside the root; ``OSError`` when they go round in circles."""
        todo = [p for p in reversed(path.split("/")) if p not in ("", ".")]
        done = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            done.append(part)
            if not todo and not follow:
                break
            target = self._link("/" + "/".join(done))
            if target is None:
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, "too many symbolic links")
            done = [] if target.startswith("/") else done[:-1]
            todo.extend(p for p in reversed(target.split("/")) if p not in ("", "."))
        return "/" + "/".join(done)

    def _place(self, path, follow=True):
        """(logical, physical): on a live host that is not recorded, the kernel resolves."""
        if self.root == "/" and not self.record:
            return path, path
        logical = self.resolve(path, follow)
        return logical, self._physical(logical)

    # Recording

    def _keep(self, logical, entry):
        if not self.record or self._size > MAX_RECORD or logical.startswith("/dev/"):
            return
        try:
            logical.encode("utf-8")
        except UnicodeError:
            return
        old = self.recorded.get(logical)
        if old is not None and (old.get("text") or old.get("b64") or old["type"] != entry["type"]):
            return
        self._size += len(entry.get("text", "")) + len(entry.get("b64", "")) + len(logical)
        self.recorded[logical] = entry

    def keep(self, path, data):
        """Record ``data`` as the content of ``path``: what of it matters, where the whole file would be too much."""
        if not self.record:
            return
        try:
            logical = self.resolve(path)
        except OSError:
            return
        if isinstance(data, bytes):
            try:
                text = data.decode("utf-8")
            except UnicodeError:
                text = None
            if text is None or "\0" in text:
                self._keep(logical, {"type": "file", "b64": base64.b64encode(data).decode("ascii")})
                return
            data = text
        self._keep(logical, {"type": "file", "text": data.encode("utf-8", "replace").decode("utf-8")})

    # Reading

    def chunks(self, path, size=1 << 20, limit=64 << 20):
        """The content of a regular file in pieces; raises ``OSError``. For what is too large to hold."""
        logical, physical = self._place(path)
        if not stat.S_ISREG(os.stat(physical).st_mode):
            raise OSError(errno.EISDIR, "not a regular file")
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        if self.root != "/":
            flags |= os.O_NOFOLLOW
        fd = os.open(physical, flags)
        try:
            while limit > 0:
                data = os.read(fd, min(size, limit))
                if not data:
                    return
                limit -= len(data)
                yield data
        finally:
            os.close(fd)

    def read(self, path, limit=65536, record=True):
        """(bytes, None) or (None, why)."""
        try:
            data = b"".join(self.chunks(path, 65536, limit))
        except (OSError, ValueError) as e:
            return None, reason(e)
        if record:
            self.keep(path, data)
        return data, None

    def read_bytes(self, path, limit=65536, what="", record=True):
        """Content of a file up to ``limit`` bytes, or ``None``; ``what`` makes its absence worth a note."""
        data, why = self.read(path, limit, record)
        if data is None and (what and why or why == "permission denied"):
            self.note(what or path, why)
        return data

    def read_text(self, path, limit=65536, what="", record=True):
        """The same as text; bytes that are no UTF-8 are replaced."""
        data = self.read_bytes(path, limit, what, record)
        return None if data is None else data.decode("utf-8", "replace")

    def line(self, path, limit=LINE, what=""):
        """A small file as one printable line; empty when it is not there."""
        data = self.read_bytes(path, 4096, what)
        return "" if data is None else clean(data.split(b"\n", 1)[0], limit)

    def number(self, path):
        """A small file as an integer, or ``None``."""
        text = self.line(path, 40)
        return int(text) if re.match(r"-?[0-9]{1,18}$", text) else None

    def stat(self, path, follow=True):
        """``os.stat_result`` or ``None``."""
        try:
            return os.stat(self._place(path)[1]) if follow else os.lstat(self._place(path, False)[1])
        except (OSError, ValueError):
            return None

    def exists(self, path):
        """Whether the path is there (a link must lead somewhere)."""
        found = self.stat(path)
        if found is not None and self.record:
            try:
                logical = self.resolve(path)
            except OSError:
                return True
            if stat.S_ISDIR(found.st_mode):
                self._keep(logical, {"type": "dir"})
            elif stat.S_ISREG(found.st_mode):
                self._keep(logical, {"type": "file", "text": ""})
        return found is not None

    def executable(self, path):
        """Whether the path is a regular file that may be run."""
        found = self.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)

    def readlink(self, path):
        """Target of a symbolic link as it is written, or empty."""
        try:
            logical, physical = self._place(path, False)
            target = os.readlink(physical)
        except (OSError, ValueError):
            return ""
        self._keep(logical, {"type": "link", "text": clean(target, 4096)})
        return clean(target, 4096)

    def listdir(self, path):
        """Sorted names in a directory; empty when it is not there."""
        try:
            names = sorted(os.listdir(self._place(path)[1]))[:MAX_LISTING]
        except (OSError, ValueError):
            return []
        return [n for n in names if _printable(n)]

    def glob(self, pattern):
        """Paths that match; ``*`` stands in single parts of the path, hidden names are left out."""
        parts = [p for p in pattern.split("/") if p]
        found = [""]
        for part in parts:
            if "*" not in part and "?" not in part:
                found = [base + "/" + part for base in found]
                continue
            found = [
                base + "/" + name
                for base in found
                for name in self.listdir(base or "/")
                if fnmatch.fnmatchcase(name, part) and not name.startswith(".")
            ][:1000]
        return sorted(path for path in found if self.stat(path, False) is not None)


def _printable(name):
    return clean(name, 255) == name


# Commands: only on a live host


def find_tool(name):
    """Absolute path of a command in the usual directories, or empty."""
    for folder in BIN_DIRS:
        path = folder + "/" + name
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _as_nobody():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def run(arguments, timeout=5, limit=8 << 20, nobody=False):
    """Standard output and exit code of a command, or (None, None). ``nobody``: with no rights to write anything."""
    path = find_tool(arguments[0])
    if not path:
        return None, None
    try:
        process = subprocess.Popen(
            [path] + list(arguments[1:]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            close_fds=True,
            preexec_fn=_as_nobody if nobody else None,  # noqa: PLW1509 - the probe has no threads
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, None
    try:
        out = process.communicate(timeout=timeout)[0]
    except (subprocess.TimeoutExpired, OSError, ValueError):
        process.kill()
        try:
            process.wait(1)  # a process that hangs in the kernel is left to the kernel
        except subprocess.TimeoutExpired:
            pass
        if process.stdout is not None:
            process.stdout.close()
        return None, None
    return out[:limit].decode("utf-8", "replace"), process.returncode
