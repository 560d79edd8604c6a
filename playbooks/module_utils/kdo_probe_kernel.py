# SPDX-License-Identifier: Apache-2.0
"""The running kernel: what it was built with, which knobs it has, what waits for a crash, how much memory there is."""

import os
import re
import struct
import zlib

try:
    from ansible.module_utils.kdo_probe_platform import text_of
    from ansible.module_utils.kdo_probe_reader import clean, reason, whole
except ImportError:
    from kdo_probe_platform import text_of
    from kdo_probe_reader import clean, reason, whole

EFI_VENDOR = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
CRASH_SHUTDOWN_OFFSET = 32  # struct machine_ops: restart, halt, power_off, shutdown, crash_shutdown, emergency_restart
MAX_CONFIG = 4 << 20
FADUMP = ("enabled", "registered", "mem_reserved", "hotplug_ready", "bootargs_append")
TMPFILES = ("/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/lib/tmpfiles.d")


def config(reader, release, names):
    """(options of interest, where they were read)."""
    wanted = set(names)
    paths = ["/proc/config.gz"]
    if release and "/" not in release:
        paths += ["/boot/config-" + release, "/lib/modules/" + release + "/config"]
    for path in paths:
        data = reader.read_bytes(path, MAX_CONFIG, record=False)
        if data is None:
            continue
        if path.endswith(".gz"):
            try:
                data = zlib.decompressobj(31).decompress(data, MAX_CONFIG)
            except zlib.error:
                reader.note(path, "not a gzip file")
                continue
        out = {}
        kept = []
        for m in re.finditer(rb"^(?:CONFIG_(\w+)=(.*)|# CONFIG_(\w+) is not set)$", data, re.M):
            name = (m.group(1) or m.group(3)).decode("ascii")
            if name in wanted:
                out[name] = clean(m.group(2).strip(b'"'), 200) if m.group(1) else "n"
                kept.append(m.group(0))
        text = b"\n".join(kept) + b"\n"
        if path.endswith(".gz"):
            squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
            text = squeeze.compress(text) + squeeze.flush()
        reader.keep(path, text)
        return out, path
    reader.note("kernel configuration", "not there")
    return {}, ""


# Symbols


def _lines(reader, path):
    """Pieces of a file that end at line ends."""
    rest = b""
    for chunk in reader.chunks(path):
        piece = rest + chunk
        cut = piece.rfind(b"\n") + 1
        rest = piece[cut:]
        if cut:
            yield piece[:cut]
    if rest:
        yield rest


def kallsyms(reader, names):
    """(sorted names of interest or None, address of each, address → name of the crash handlers)."""
    wanted = {n.encode() for n in names}
    found = {}
    handlers = {}
    kept = []
    try:
        for piece in _lines(reader, "/proc/kallsyms"):
            here = wanted.intersection(piece.split())
            pattern = b"|".join([re.escape(n) for n in sorted(here)])
            if here:
                for m in re.finditer(rb"^([0-9a-f]+) (\w) (" + pattern + rb")[\t\n]", piece, re.M):
                    found[m.group(3).decode("ascii", "replace")] = int(m.group(1), 16)
                    kept.append(b"0" * 16 + b" " + m.group(2) + b" " + m.group(3))
            at = piece.find(b"_crash_shutdown")
            while at >= 0:
                line = piece[piece.rfind(b"\n", 0, at) + 1 : piece.find(b"\n", at)].split()
                if len(line) >= 3 and line[2].endswith(b"_crash_shutdown"):
                    handlers[int(line[0], 16)] = line[2].decode("ascii", "replace")
                at = piece.find(b"_crash_shutdown", at + 1)
    except (OSError, ValueError) as e:
        reader.note("/proc/kallsyms", reason(e))
        return None, {}, {}
    if not found and not handlers:
        reader.note("/proc/kallsyms", "names none of the symbols of interest")
    reader.keep("/proc/kallsyms", b"\n".join(kept) + b"\n")
    return sorted(found), found, handlers


def read_virtual(path, address, size):
    """Bytes at a kernel address, through an ELF core file; raises ``OSError`` or ``ValueError``."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, 64, 0)
        if len(head) != 64 or head[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit ELF file")
        start, entry_size, count = (
            struct.unpack("<Q", head[32:40])[0],
            struct.unpack("<H", head[54:56])[0],
            struct.unpack("<H", head[56:58])[0],
        )
        if entry_size < 56:
            raise ValueError("odd program headers")
        table = os.pread(fd, entry_size * count, start)
        for at in range(0, len(table) - 55, entry_size):
            kind, _, offset, virtual, _, in_file = struct.unpack("<IIQQQQ", table[at : at + 40])
            if kind == 1 and virtual <= address and address + size <= virtual + in_file:
                data = os.pread(fd, size, offset + address - virtual)
                if len(data) == size:
                    return data
        raise ValueError("the address is in no segment")
    finally:
        os.close(fd)


def crash_shutdown(reader, arch, addresses, handlers, said):
    """Name of the symbol that ``machine_ops.crash_shutdown`` points to (x86_64, root)."""
    if not reader.live:
        return text_of(said, "crash_shutdown") or None
    if arch != "x86_64" or "machine_ops" not in addresses:
        return None
    what = "machine_ops.crash_shutdown"
    if not addresses["machine_ops"]:
        reader.note(what, "the kernel hides addresses")
        return None
    try:
        place = addresses["machine_ops"] + CRASH_SHUTDOWN_OFFSET
        value = struct.unpack("<Q", read_virtual(reader.root.rstrip("/") + "/proc/kcore", place, 8))[0]
        name = handlers.get(value) or _symbol_at(reader, value)
    except OSError as e:
        reader.note(what, "/proc/kcore: " + reason(e))
        return None
    except (ValueError, struct.error) as e:
        reader.note(what, "/proc/kcore: %s" % e)
        return None
    if not name:
        reader.note(what, "points to no symbol")
    return name or None


def _symbol_at(reader, address):
    if not address:
        return ""
    needle = b"\n%016x " % address
    for piece in _lines(reader, "/proc/kallsyms"):
        at = (b"\n" + piece).find(needle)
        if at >= 0:
            return clean(piece[at : at + 300].split(b"\n", 1)[0].split()[2])
    return ""


# Sections


def release(reader):
    """Release of the kernel."""
    told = reader.line("/proc/sys/kernel/osrelease", 200)
    if told:
        return told
    if reader.live:
        return os.uname().release
    m = re.match(r"Linux version (\S+)", reader.line("/proc/version", 1000))
    return clean(m.group(1), 200) if m else ""


def _version(reader):
    told = reader.line("/proc/sys/kernel/version", 300)
    if told:
        return told
    m = re.search(r"(#\d.*)$", reader.line("/proc/version", 1000))
    return clean(m.group(1), 300) if m else ""


def _efi_variable(reader, name):
    raw = reader.read_bytes("/sys/firmware/efi/efivars/" + name + EFI_VENDOR, 16)
    return raw[4] if raw is not None and len(raw) > 4 else None


def _booted(reader):
    """Nanoseconds since the epoch, or None. /proc/stat is long and changes all the time, so it is not kept."""
    match = re.search(r"^btime ([0-9]{1,12})$", reader.read_text("/proc/stat", 1 << 20, record=False) or "", re.M)
    return int(match.group(1)) * 10**9 if match else None


def kernel(reader, interest, arch, redactor, said):
    """The whole section."""
    now = release(reader)
    options, source = config(reader, now, interest.get("config", []))
    symbols, addresses, handlers = kallsyms(reader, interest.get("symbols", []))
    command_line = reader.read_text("/proc/cmdline", 65536, "kernel command line", record=False)
    command_line = redactor.words(clean(command_line or "", 16384))
    if command_line:
        reader.keep("/proc/cmdline", command_line + "\n")
    modules = reader.read_text("/proc/modules", 1 << 20, record=False)
    names = None
    if modules is not None:
        names = sorted({clean(line.split()[0], 64) for line in modules.splitlines() if line.split()})[:2000]
        reader.keep("/proc/modules", "".join("%s 0 0 - Live 0x0\n" % n for n in names))
    parameters = {}
    for name in interest.get("module_params", []):
        module, _, parameter = name.partition(".")
        value = reader.line("/sys/module/%s/parameters/%s" % (module, parameter), 200)
        if value:
            parameters[name] = value
    sysctls = {}
    for name in interest.get("sysctls", []):
        value = reader.line("/proc/sys/" + name, 200)
        if value:
            sysctls[name] = value
    return {
        "release": now,
        "version": _version(reader),
        "cmdline": command_line,
        "config": options,
        "config_source": source,
        "symbols": symbols,
        "crash_shutdown": crash_shutdown(reader, arch, addresses, handlers, said),
        "post_notifiers": reader.line("/sys/module/kernel/parameters/crash_kexec_post_notifiers", 8) or None,
        "sysctls": sysctls,
        "module_params": parameters,
        "modules": names,
        "booted": _booted(reader),
        "lockdown": reader.line("/sys/kernel/security/lockdown", 100),
        "efi": reader.exists("/sys/firmware/efi") if reader.exists("/sys/firmware") else None,
        "secure_boot": _efi_variable(reader, "SecureBoot"),
        "setup_mode": _efi_variable(reader, "SetupMode"),
    }


def _iomem(reader):
    """(sum of System RAM or None, sizes of "Crash kernel")."""
    text = reader.read_text("/proc/iomem", 4 << 20, "/proc/iomem", record=False)
    total, crash, kept = 0, [], []
    hidden = text is not None
    for m in re.finditer(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (System RAM|Crash kernel)$", text or "", re.M):
        start, end = int(m.group(2), 16), int(m.group(3), 16)
        kept.append(m.group(0))
        hidden = hidden and end == 0
        if m.group(4) == "Crash kernel":
            crash.append(end - start + 1)
        elif not m.group(1):
            total += end - start + 1
    if text is not None:
        reader.keep("/proc/iomem", "\n".join(kept) + "\n")
    if hidden:
        if kept:
            reader.note("addresses in /proc/iomem", "permission denied")
        return None, []
    return total or None, crash[:64]


def _notifier_setters(reader):
    out = []
    for folder in TMPFILES:
        for name in reader.listdir(folder):
            path = folder + "/" + name
            text = reader.read_text(path, 65536, record=False) if name.endswith(".conf") else None
            lines = [
                clean(line, 300)
                for line in (text or "").splitlines()
                if "crash_kexec_post_notifiers" in line and not line.lstrip().startswith("#")
            ]
            if lines:
                reader.keep(path, "\n".join(lines) + "\n")
                out.extend(path + ": " + line for line in lines)
    return out[:64]


def kexec(reader, crash_regions, redactor):
    """State of the crash kernel slot."""
    base = "/sys/kernel/"
    loaded = reader.number(base + "kexec_crash_loaded")
    loaded = reader.number(base + "kexec/crash_loaded") if loaded is None else loaded
    size = reader.number(base + "kexec_crash_size")
    fadump = {}
    for name in FADUMP:
        value = reader.line(base + "fadump/" + name, 1000) or reader.line(base + "fadump_" + name, 1000)
        if value:
            fadump[name] = redactor.words(value)
    supported = (
        loaded is not None or reader.exists(base + "kexec_crash_loaded") or reader.exists(base + "kexec/crash_loaded")
    )
    return {
        "supported": supported if supported or reader.exists(base) else None,
        "crash_loaded": None if loaded is None else loaded == 1,
        "crash_size": reader.number(base + "kexec/crash_size") if size is None else size,
        "load_disabled": reader.number("/proc/sys/kernel/kexec_load_disabled"),
        "limit_panic": reader.number("/proc/sys/kernel/kexec_load_limit_panic"),
        "limit_reboot": reader.number("/proc/sys/kernel/kexec_load_limit_reboot"),
        "crash_regions": crash_regions,
        "fadump": fadump,
        "on_panic": reader.line("/sys/firmware/shutdown_actions/on_panic", 60),
        "notifier_setters": _notifier_setters(reader),
    }


def memory(reader, said):
    """(the whole section, sizes of the crash regions)."""
    system_ram, crash = _iomem(reader)
    told = said.get("memory") if isinstance(said.get("memory"), dict) else {}
    m = re.search(r"^MemTotal:\s+(\d{1,15}) kB", reader.read_text("/proc/meminfo", 4096, record=False) or "", re.M)
    if m:
        reader.keep("/proc/meminfo", m.group(0) + "\n")
    cpus = 0
    possible = reader.line("/sys/devices/system/cpu/possible", 1000)
    for part in possible.split(",") if re.match(r"[0-9]{1,6}([,-][0-9]{1,6})*$", possible) else []:
        first, _, last = part.partition("-")
        cpus += int(last or first) - int(first) + 1
    page = os.sysconf("SC_PAGE_SIZE") if reader.live else whole(told.get("page_size"))
    section = {
        "total": int(m.group(1)) * 1024 if m else whole(told.get("total")),
        "system_ram": system_ram if system_ram is not None else whole(told.get("system_ram")),
        "page_size": page,
        "cpus": cpus if cpus > 0 else whole(told.get("cpus")),
    }
    return section, crash
