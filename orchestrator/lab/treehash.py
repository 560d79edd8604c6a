# SPDX-License-Identifier: Apache-2.0
"""State of every file of a system, to prove that a dry run changed nothing.

Run in a guest as ``python3 -B - < treehash.py`` (Python 3.6 or later, standard library only): prints one JSON object
``{"files": {path: [type, mode, uid, gid, size, mtime_ns, sha256]}, "logs": {…same…}}``. ``type`` is one letter
(f d l b c p s); ``sha256`` is of a file's content or of a link's target, and "" for everything else. ``logs`` holds
what merely logging in writes. Access and change times are left out: reading alone alters the one, and the
other cannot be put back by any tool.
"""

import hashlib
import json
import os
import stat
import sys
from typing import Dict, List, Optional  # noqa: UP035  (the guest's Python may be older)

SKIP = ("/proc", "/sys", "/dev", "/run")
LOGS = ("/var/log", "/var/lib/lastlog", "/var/lib/wtmpdb", "/var/lib/systemd/random-seed")
_TYPES = {
    stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFBLK: "b",
    stat.S_IFCHR: "c", stat.S_IFIFO: "p", stat.S_IFSOCK: "s",
}  # fmt: skip

Entry = List[object]  # noqa: UP006
Listing = Dict[str, Dict[str, List[object]]]  # noqa: UP006


def snapshot(root: str = "/") -> Listing:
    """State of the tree at ``root``; paths in the result start with "/" and are relative to it."""
    result: Listing = {"files": {}, "logs": {}}
    base = root.rstrip("/")
    for directory, names, files in os.walk(base or "/"):
        inside = directory[len(base) :] or "/"
        prefix = inside.rstrip("/") + "/"
        names[:] = sorted(name for name in names if prefix + name not in SKIP)
        for name in [""] + names + files if inside == "/" else names + files:  # noqa: RUF005
            path = prefix + name
            entry = _entry(base + path)
            if entry is not None:
                result["logs" if _is_log(path) else "files"][path] = entry
    return result


def diff_trees(before: Listing, after: Listing) -> List[str]:  # noqa: UP006
    """Differences of the ``files`` of two snapshots by path: ``+ path``, ``- path``, ``~ path: what changed``."""
    names = ("type", "mode", "uid", "gid", "size", "mtime_ns", "sha256")
    old, new = before["files"], after["files"]
    lines = []
    for path in sorted(set(old) | set(new)):
        if path not in old:
            lines.append("+ " + path)
        elif path not in new:
            lines.append("- " + path)
        elif old[path] != new[path]:
            changed = [
                "{} {} -> {}".format(name, _shown(name, was), _shown(name, now))  # noqa: UP032
                for name, was, now in zip(names, old[path], new[path])  # noqa: B905
                if was != now
            ]
            lines.append("~ {}: {}".format(path, ", ".join(changed)))
    return lines


def _shown(name: str, value: object) -> str:
    return "{:04o}".format(value) if name == "mode" and isinstance(value, int) else str(value)  # noqa: UP032


def _is_log(path: str) -> bool:
    return any(path == log or path.startswith(log + "/") for log in LOGS)


def _entry(path: str) -> Optional[Entry]:  # noqa: UP045
    try:
        info = os.lstat(path)
        kind = _TYPES.get(stat.S_IFMT(info.st_mode), "?")
        digest = ""
        if kind == "l":
            digest = hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()  # noqa: PTH115
        elif kind == "f":
            content = hashlib.sha256()
            with open(path, "rb") as handle:  # noqa: PTH123
                for block in iter(lambda: handle.read(1 << 20), b""):
                    content.update(block)
            digest = content.hexdigest()
    except OSError as error:
        return ["!", 0, 0, 0, 0, 0, str(error.errno)]
    size = info.st_size if kind in "fl" else 0  # a directory's size depends on its history
    return [kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, size, info.st_mtime_ns, digest]


if __name__ == "__main__":
    json.dump(snapshot(), sys.stdout)
