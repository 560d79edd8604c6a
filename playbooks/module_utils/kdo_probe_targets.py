# SPDX-License-Identifier: Apache-2.0
"""Dump targets that are no directory: devices by UUID, label or name, and what a login at a dump server needs.

The targets come in the words of a policy: ``UUID=…``, ``LABEL=…``, ``/dev/…``, ``user@server``, and ``key:PATH`` for a
private key. A private key is never read, only its mode and owner; of known_hosts only the keys of servers that were
asked about leave the host.
"""

import posixpath
import re
import stat

try:
    from ansible.module_utils.kdo_probe_mounts import mounts, space
    from ansible.module_utils.kdo_probe_reader import clean, whole
    from ansible.module_utils.kdo_ssh import FOLDER, KNOWN_HOSTS, SYSTEM_KNOWN_HOSTS, host_keys, public_key
except ImportError:
    from kdo_probe_mounts import mounts, space
    from kdo_probe_reader import clean, whole
    from kdo_ssh import FOLDER, KNOWN_HOSTS, SYSTEM_KNOWN_HOSTS, host_keys, public_key

KEY_WORD = "key:"
MAX_KEYS = 32
_DEVICE = re.compile(r"(UUID=|LABEL=|/dev/)")
_NO_KEY = re.compile(r"(authorized_keys|known_hosts|config|environment|rc|.*\.pub|.*\.old)\d*\Z")


def is_device(word):
    """Whether a target's word names a device."""
    return bool(_DEVICE.match(word))


def is_path(word):
    """Whether a target's word names a directory."""
    return word.startswith("/") and not is_device(word)


# Devices


def _is(device, word, name):
    p = device["properties"]
    kind, _, value = word.partition("=")
    if kind == "UUID":
        return p.get("ID_FS_UUID", "").lower() == value.lower()
    if kind == "LABEL":
        return p.get("ID_FS_LABEL") == value
    return device["sysname"] == name or (
        word.startswith("/dev/mapper/") and p.get("DM_NAME") == posixpath.basename(word)
    )


def _find(reader, devices, word):
    name = ""
    if word.startswith("/dev/"):
        try:
            name = posixpath.basename(reader.resolve(word))  # /dev/disk/by-…, /dev/VG/LV and the like are links
        except OSError:
            name = posixpath.basename(word)
    for devpath in devices.source.list("block"):
        device = devices.get(devpath)
        if device is not None and _is(device, word, name):
            return device
    return None


def device_targets(reader, devices, words, said):
    """The devices among the targets: what each is, what it lies on, and where it is mounted now."""
    words = [word for word in words if is_device(word)]
    if not words:
        return []
    table = mounts(reader.read_text("/proc/self/mountinfo", 4 << 20) or "")
    recorded = said.get("targets") if isinstance(said.get("targets"), dict) else {}
    out = []
    for word in words:
        device = _find(reader, devices, word)
        entry = {"path": clean(word, 300), "exists": device is not None}
        if device is not None:
            p = device["properties"]
            name = p.get("DEVNAME") or "/dev/" + device["sysname"]
            number = "%s:%s" % (p.get("MAJOR", "?"), p.get("MINOR", "?"))
            there = [
                m
                for m in table
                if m["number"] == number or m["source"] in (name, "/dev/mapper/" + p.get("DM_NAME", "?"))
            ]
            told = recorded.get(word) if isinstance(recorded.get(word), dict) else {}
            blocks = reader.number("/sys" + device["devpath"] + "/size")
            size, free = told.get("size", blocks * 512 if blocks is not None else None), told.get("free")
            entry.update(
                {
                    "source": name,
                    "fs_type": p.get("ID_FS_TYPE", ""),
                    "fs_uuid": p.get("ID_FS_UUID", ""),
                    "fs_label": p.get("ID_FS_LABEL", ""),
                    "chain": devices.chain(device["devpath"]),
                }
            )
            if there:
                mount = there[0]
                if reader.live:
                    size, free = space(mount["point"], mount["fs_type"])
                entry.update({"mount_point": clean(mount["point"], 1024), "read_only": mount["read_only"]})
            entry.update({"size": whole(size), "free": whole(free)})
        out.append(entry)
    return out


# SSH


def _key(reader, path):
    info = reader.stat(path)
    if info is None or not stat.S_ISREG(info.st_mode):
        return None
    half = reader.read_text(path + ".pub", 16384, record=False)
    return {
        "path": clean(path, 1024),
        "mode": "%04o" % stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "public": public_key(half.strip()) if half else "",
    }


def ssh(reader, words):
    """Keys that root could log in with, and the host keys of the servers among the targets; empty if none was asked for."""
    servers = sorted({w.rpartition("@")[2] for w in words if "@" in w and "/" not in w and "=" not in w})
    paths = [w[len(KEY_WORD) :] for w in words if w.startswith(KEY_WORD)]
    if not servers and not paths:
        return {}
    folder = reader.stat(FOLDER)
    if folder is None and reader.stat("/root") is None:
        reader.note(FOLDER, "cannot be looked at")
        return {}
    names = [name for name in reader.listdir(FOLDER) if not _NO_KEY.match(name)]
    paths = sorted(set(paths + [FOLDER + "/" + name for name in names]))[:MAX_KEYS]
    texts = [
        reader.read_text(path, 4 << 20, record=False) or ""
        for path in (KNOWN_HOSTS, KNOWN_HOSTS + "2", SYSTEM_KNOWN_HOSTS)
    ]
    known = {}
    for server in servers:
        found = [key for text in texts for key in host_keys(text, server)]
        known[clean(server, 300)] = sorted(set(found))[:MAX_KEYS]
    return {"keys": [key for key in (_key(reader, path) for path in paths) if key is not None], "known": known}
