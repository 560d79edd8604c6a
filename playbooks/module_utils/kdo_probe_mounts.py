# SPDX-License-Identifier: Apache-2.0
"""Mounts, and the paths where dumps may go."""

import os
import posixpath
import re

try:
    from ansible.module_utils.kdo_probe_reader import clean, run, whole
except ImportError:
    from kdo_probe_reader import clean, run, whole

# What may wait for another machine, so that asking it could take for ever.
NETWORK_FS = re.compile(r"^(nfs|cifs|smb|ceph|glusterfs|fuse|9p|afs|lustre|gpfs|ocfs2|gfs2|virtiofs)")


def _unescape(text):
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), text)


def mounts(text):
    """Lines of mountinfo as dictionaries, in order."""
    out = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        a, b = left.split(" "), right.split(" ")
        if len(a) < 6 or len(b) < 2:
            continue
        options = set(a[5].split(",")) | set((b[2] if len(b) > 2 else "").split(","))
        out.append(
            {
                "number": a[2],
                "point": _unescape(a[4]),
                "fs_type": b[0],
                "source": _unescape(b[1]),
                "read_only": "ro" in options,
            }
        )
    return out


def mount_of(path, table):
    """The mount that a path is on: the longest mount point, and the last of equal ones."""
    best = None
    for m in table:
        point = m["point"].rstrip("/")
        if (path == point or path.startswith(point + "/")) and (
            best is None or len(point) >= len(best["point"].rstrip("/"))
        ):
            best = m
    return best


def space(path, fs_type):
    """(size, free) of a live path. A dead file server must not hold the probe up, so ``stat`` asks that one."""
    while True:
        if NETWORK_FS.match(fs_type):
            text, code = run(["stat", "-f", "-c", "%b %a %S", "--", path], 5)
            words = (text or "").split()
            if code == 0 and len(words) == 3 and all(w.isdigit() for w in words):
                return int(words[0]) * int(words[2]), int(words[1]) * int(words[2])
            return None, None
        try:
            s = os.statvfs(path)
            return s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize
        except OSError:
            if path == "/":
                return None, None
            path = posixpath.dirname(path)


def targets(reader, devices, paths, said):
    """Where dumps may go, as it is now."""
    table = mounts(reader.read_text("/proc/self/mountinfo", 4 << 20, "mounts") or "")
    recorded = said.get("targets") if isinstance(said.get("targets"), dict) else {}
    out = []
    for wanted in paths:
        path = posixpath.normpath("/" + wanted.lstrip("/"))
        mount = mount_of(path, table)
        remote = mount is not None and NETWORK_FS.match(mount["fs_type"])
        real = path
        if not (remote and reader.live):
            try:
                real = reader.resolve(path)
            except OSError:
                reader.note(path, "too many symbolic links")
            mount = mount_of(real, table)
        told = recorded.get(path) if isinstance(recorded.get(path), dict) else {}
        size, free = told.get("size"), told.get("free")
        if reader.live:
            size, free = space(real, mount["fs_type"] if mount is not None else "")
        entry = {
            "path": path,
            "exists": bool(told["exists"])
            if "exists" in told
            else (size is not None if remote else reader.exists(path)),
            "size": whole(size),
            "free": whole(free),
        }
        if mount is not None:
            devpath = devices.block(mount["number"], mount["source"])
            device = devices.get(devpath) if devpath else None
            p = device["properties"] if device is not None else {}
            entry.update(
                {
                    "mount_point": clean(mount["point"], 1024),
                    "source": clean(mount["source"], 1024),
                    "fs_type": clean(mount["fs_type"], 64),
                    "fs_uuid": p.get("ID_FS_UUID", ""),
                    "fs_label": p.get("ID_FS_LABEL", ""),
                    "read_only": mount["read_only"],
                    "chain": devices.chain(devpath) if devpath else [],
                }
            )
        out.append(entry)
    return out
