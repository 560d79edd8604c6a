# SPDX-License-Identifier: Apache-2.0
"""Distribution, boot stack, the files that we may change, packages and services."""

import hashlib
import os
import posixpath
import re
import stat

try:
    from ansible.module_utils.kdo_probe_mounts import mount_of, mounts
    from ansible.module_utils.kdo_probe_platform import existing, text_of, texts_of
    from ansible.module_utils.kdo_probe_reader import BIN_DIRS, clean, reason, run
except ImportError:
    from kdo_probe_mounts import mount_of, mounts
    from kdo_probe_platform import existing, text_of, texts_of
    from kdo_probe_reader import BIN_DIRS, clean, reason, run

MAX_TEXT = 64 << 10
MAX_HASHED = 1 << 20
MAX_FILES = 400
MAX_ALL_TEXT = 400 << 10
MAX_GRUB_LINES, MAX_GRUB_LINE, MAX_GRUB_TEXT = 4000, 2000, 256 << 10
_GRUB = re.compile(
    r"(menuentry|submenu|linux|initrd|multiboot|module|set default|set fallback|(if|elif|else|fi)\b|load_env|\}|blscfg|save_env)"
)
_LOADER = ("LoaderEntryDefault", "LoaderEntryOneShot", "LoaderEntryLastBooted", "LoaderEntrySelected")
_LOADER_VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
_UNITS = (("LoadState", "load"), ("UnitFileState", "enabled"), ("ActiveState", "active"))
_UNITS += (("SubState", "sub"), ("ConditionResult", "condition"), ("Result", "result"))


def distribution(reader):
    """``os-release``."""
    text = reader.read_text("/etc/os-release", 16384)
    if text is None:
        text = reader.read_text("/usr/lib/os-release", 16384, "os-release")
    values = {}
    for line in (text or "").splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            values[key] = clean(re.sub(r"\\([\\\"'$`])", r"\1", value.strip().strip("\"'")), 200)
    root = mount_of("/", mounts(reader.read_text("/proc/self/mountinfo", 4 << 20) or ""))
    return {
        "id": values.get("ID", ""),
        "id_like": values.get("ID_LIKE", "").split()[:16],
        "version_id": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "name": values.get("PRETTY_NAME", "") or values.get("NAME", ""),
        "variant_id": values.get("VARIANT_ID", ""),
        "ostree": reader.exists("/run/ostree-booted") or reader.exists("/ostree"),
        "read_only_root": bool(root and root["read_only"]),
    }


# Boot stack


def _grub(reader, paths, redactor):
    path = next((p for p in paths if reader.exists(p)), "")
    if not path:
        return {}
    data, why = reader.read(path, 8 << 20, record=False)
    if data is None:
        reader.note(path, why)
        return {"path": path}
    lines = []
    size = 0
    text = redactor.text(data.decode("utf-8", "replace"))[0]
    for raw in text.splitlines():
        line = raw.strip()
        if not _GRUB.match(line):
            continue
        kept = clean(line, MAX_GRUB_LINE)
        size += len(kept) + 4
        if len(lines) == MAX_GRUB_LINES or size > MAX_GRUB_TEXT:
            reader.note(path, "too long: only the first %d lines of interest are kept" % len(lines))
            break
        lines.append(kept)
    reader.keep(path, "\n".join(lines) + "\n")
    env = {}
    block = reader.read_text(posixpath.dirname(path) + "/grubenv", 4096, record=False)
    for line in redactor.text(block or "")[0].splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#") and len(env) < 64:
            env[clean(key, 64)] = clean(value, 1000)
    if block is not None:
        kept = "# GRUB Environment Block\n" + "".join("%s=%s\n" % item for item in sorted(env.items()))
        reader.keep(posixpath.dirname(path) + "/grubenv", kept)
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "lines": lines, "env": env}


def _loader(reader):
    """What systemd-boot keeps in the firmware: four bytes of attributes, then UTF-16."""
    found = {}
    for name in _LOADER:
        data = reader.read_bytes("/sys/firmware/efi/efivars/%s-%s" % (name, _LOADER_VENDOR), 1024, record=False)
        if data and len(data) > 4:
            value = clean(data[4:].decode("utf-16-le", "replace").split("\0")[0], 300)
            if value:
                found[name] = value
    return found


def _kargs(reader, redactor, said):
    """What the next deployment boots with: a staged one has no loader entry yet."""
    text = text_of(said, "kargs")
    if reader.live and reader.exists("/run/ostree-booted"):
        rows = [row for row in (run(["rpm-ostree", "kargs"], 30)[0] or "").splitlines() if row.strip()]
        text = rows[-1] if rows else ""
    return clean(redactor.text(text)[0].strip(), 4096)


def boot(reader, interest, redactor, said):
    """Marks of boot stacks."""
    told = texts_of(said, "tools")
    if told is None:
        tools = [t for t in interest.get("tools", []) if any(reader.executable(d + "/" + t) for d in BIN_DIRS)]
    else:
        tools = [t for t in interest.get("tools", []) if t in told]
    return {
        "markers": existing(reader, interest.get("boot_markers", []), None),
        "tools": tools,
        "grub": _grub(reader, interest.get("grub_cfg", []), redactor),
        "loader": _loader(reader),
        "kargs": _kargs(reader, redactor, said),
    }


# Files


def _fact(reader, path):
    """(fact without content, whether it is a regular file)."""
    own = reader.stat(path, False)
    if own is None:
        return None, False
    link = reader.readlink(path) if stat.S_ISLNK(own.st_mode) else ""
    found = reader.stat(path)
    fact = {"link": clean(link, 1024)}
    if found is None:
        fact["error"] = "the link leads nowhere"
        found = own
    fact.update(
        {
            "size": found.st_size,
            "mode": "%04o" % stat.S_IMODE(found.st_mode),
            "uid": found.st_uid,
            "gid": found.st_gid,
            "mtime": int(found.st_mtime_ns),
        }
    )
    return fact, stat.S_ISREG(found.st_mode) and "error" not in fact


def _hash(reader, path):
    digest = hashlib.sha256()
    for piece in reader.chunks(path, MAX_HASHED, MAX_HASHED):
        digest.update(piece)
    return digest.hexdigest()


def _with_text(reader, path, fact, redactor):
    if fact["size"] > MAX_TEXT:
        fact["error"] = "too large"
        if fact["size"] <= MAX_HASHED:
            fact["sha256"] = _hash(reader, path)
        return
    data, why = reader.read(path, MAX_TEXT + 1, record=False)
    if data is None:
        fact["error"] = why
        reader.note(path, why)
        return
    if len(data) > MAX_TEXT:  # it has grown since
        fact["error"] = "too large"
        return
    fact["sha256"] = hashlib.sha256(data).hexdigest()
    fact["size"] = len(data)
    if b"\0" in data:
        fact["error"] = "not a text"
        return
    try:
        text = data.decode("utf-8")
    except UnicodeError:
        text = data.decode("utf-8", "replace")
        fact["error"] = "not UTF-8"
    fact["text"], fact["redacted"] = redactor.text(text)
    reader.keep(path, fact["text"])


def files(reader, interest, redactor):
    """Facts per path: with text for ``files``, without for ``stat_only``."""
    out = {}
    total = 0
    for wanted, patterns in ((True, interest.get("files", [])), (False, interest.get("stat_only", []))):
        for pattern in patterns:
            for path in reader.glob(pattern):
                if path in out:
                    continue
                if len(out) == MAX_FILES:
                    reader.note("further files of interest", "more than %d" % MAX_FILES)
                    return out
                fact, regular = _fact(reader, path)
                if fact is None:
                    continue
                try:
                    if not regular:
                        if wanted and "error" not in fact:
                            fact["error"] = "not a file"
                    elif wanted:
                        _with_text(reader, path, fact, redactor)
                    elif fact["size"] <= MAX_HASHED:
                        fact["sha256"] = _hash(reader, path)
                    if not wanted:
                        reader.exists(path)
                except OSError as e:
                    fact["error"] = reason(e)
                total += len(fact.get("text") or "")
                if total > MAX_ALL_TEXT and fact.get("text"):
                    fact.update({"text": None, "redacted": 0, "error": "left out: too much text in all"})
                out[path] = fact
    return out


# Packages and services


def _dpkg(reader, names):
    data = reader.read_bytes("/var/lib/dpkg/status", 64 << 20, record=False)
    if not data:
        return None
    wanted = {n.encode("ascii", "replace") for n in names}
    out = {}
    for raw in data.split(b"\n\n"):
        block = raw.lstrip(b"\n")
        end = block.find(b"\n")
        if not block.startswith(b"Package: ") or block[9:end] not in wanted:
            continue
        version = re.search(rb"^Version: (\S+)", block, re.M)
        if version and re.search(rb"^Status: \S+ \S+ installed$", block, re.M):
            out.setdefault(block[9:end].decode("ascii", "replace"), clean(version.group(1), 100))
    return out


def _rpm(names):
    query = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n"
    # As nobody: for root sqlite touches the database's shared memory file, and a probe writes nothing.
    text = run(["rpm", "-q", "--qf", query] + names, 10, nobody=True)[0]
    if text is None:
        return None
    words = [line.split(" ") for line in text.splitlines()]
    return {w[0]: clean(w[1], 100) for w in words if len(w) == 2 and w[0] in names}


def _pacman(reader, names):
    out = {}
    for entry in reader.listdir("/var/lib/pacman/local"):
        parts = entry.rsplit("-", 2)
        if len(parts) == 3 and parts[0] in names:
            out[parts[0]] = "-".join(parts[1:])
    return out


def packages(reader, interest, said):
    """(installed packages of interest or None, package manager, candidates)."""
    names = [n for n in interest.get("packages", []) if re.match(r"[A-Za-z0-9][A-Za-z0-9+._-]*$", n)]
    if "package_manager" in said:
        found = _strings(said.get("packages")) if isinstance(said.get("packages"), dict) else None
        return found, text_of(said, "package_manager"), _strings(said.get("available"))
    found, manager = _dpkg(reader, names), "dpkg"
    if found is None and any(reader.exists(p) for p in ("/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm")):
        manager = "rpm"
        found = _rpm(names) if reader.live else None
    elif found is None and reader.exists("/var/lib/pacman/local"):
        found, manager = _pacman(reader, names), "pacman"
    elif found is None:
        manager = ""
    if found is None:
        reader.note(
            "package database",
            "no answer from rpm" if manager and reader.live else "needs rpm" if manager else "not there",
        )
    available = {}
    missing = [
        n for n in interest.get("available", []) if n not in (found or {}) and re.match(r"[a-z0-9][a-z0-9+.-]*$", n)
    ]
    if reader.live and manager == "dpkg" and missing:
        name = ""
        # As nobody: root's apt-cache would write its cache anew.
        for line in (run(["apt-cache", "policy"] + missing, 10, nobody=True)[0] or "").splitlines():
            m = re.match(r"(\S+):$|  Candidate: ([^\s(]\S*)$", line)
            if m and m.group(1):
                name = m.group(1)
            elif m and name in missing:
                available[name] = clean(m.group(2), 100)
    return found, manager, available


def _strings(value):
    if not isinstance(value, dict):
        return {}
    return {clean(k): clean(v) for k, v in list(value.items())[:200] if isinstance(v, str)}


def services(reader, names, said):
    """``systemctl show`` of the units of interest."""
    if isinstance(said.get("services"), dict):
        keys = [key for _, key in _UNITS]
        told = [(n, said["services"][n]) for n in names if isinstance(said["services"].get(n), dict)]
        return {n: {k: text_of(s, k) for k in keys} for n, s in told}
    names = [n for n in names if re.match(r"[A-Za-z0-9][\w@:.-]*$", n)]
    text, code = None, None
    if reader.live and names and os.path.isdir("/run/systemd/system"):
        units = [n if n.endswith((".service", ".timer", ".socket")) else n + ".service" for n in names]
        wanted = ",".join(["Id"] + [name for name, _ in _UNITS])
        text, code = run(["systemctl", "show"] + units + ["-p", wanted, "--no-pager"], 10)
    blocks = [b for b in (text or "").split("\n\n") if b.strip()]
    if code != 0 or len(blocks) != len(names):
        if names:
            reader.note("services", "systemd does not run here" if text is None else "systemctl gave no answer")
        return {}
    out = {}
    for name, block in zip(names, blocks):  # noqa: B905 - answers come in the order of the question
        values = {line.partition("=")[0]: line.partition("=")[2] for line in block.splitlines()}
        out[name] = {key: clean(values.get(prop, ""), 60) for prop, key in _UNITS}
    return out
