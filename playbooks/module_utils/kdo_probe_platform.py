# SPDX-License-Identifier: Apache-2.0
"""All that can tell which platform this is: collected, not judged."""

import fnmatch
import os
import re
import struct

try:
    from ansible.module_utils import kdo_probe_cpuid as instruction
    from ansible.module_utils.kdo_probe_reader import clean, find_tool, reason, run
except ImportError:
    import kdo_probe_cpuid as instruction
    from kdo_probe_reader import clean, find_tool, reason, run

LOG_LINES = 200
LOG_WIDTH = 300
LOG_RECORDS = 100000
_ELF = {
    3: "i686",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_STAMP = re.compile(r"^(?:<[0-9]+>)?\[ *[0-9]+\.[0-9]+\](?:\[ *[TC][0-9]+\])? ?")
_SYSINFO = re.compile(r"^(Manufacturer|Type|LPAR Number|LPAR Characteristics|VM[0-9]{2} Control Program)\s*:")
_CPUINFO = re.compile(
    r"^(vendor_id|flags|Features|features|platform|machine|CPU implementer|CPU Family|isa|mvendorid|uarch)\s*:"
)


def text_of(said, key, default=""):
    """A string in what a record says."""
    return clean(said[key]) if isinstance(said.get(key), str) else default


def texts_of(said, key):
    """A list of strings in what a record says, or ``None``."""
    return [clean(v) for v in said[key][:1000] if isinstance(v, str)] if isinstance(said.get(key), list) else None


def machine(reader, said):
    """Architecture: the kernel's word on a live host, else what files tell."""
    if reader.live:
        return os.uname().machine
    told = text_of(said, "machine") or reader.line("/proc/sys/kernel/arch", 40)
    if told:
        return told
    for path in ("/bin/sh", "/usr/bin/env", "/sbin/init"):
        head = reader.read_bytes(path, 20)
        if head is not None and len(head) == 20 and head[:4] == b"\x7fELF" and head[5] in (1, 2):
            number = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
            found = _ELF.get(number)
            if found:
                return found + "le" if found == "ppc64" and head[5] == 1 else found
    reader.note("machine", "not there")
    return None


# Kernel log


def _kmsg():
    """Messages of the kernel itself in /dev/kmsg, and whether the beginning is lost; raises ``OSError``."""
    lines = []
    lost = False
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        for number in range(LOG_RECORDS):
            try:
                record = os.read(fd, 16384)
            except BrokenPipeError:  # overwritten while it was read; the next one is there
                continue
            except BlockingIOError:
                break
            if not record:
                break
            prefix, _, message = record.partition(b";")
            fields = prefix.split(b",")
            if number == 0 and len(fields) > 1 and fields[1] != b"0":
                lost = True
            if fields[0].isdigit() and int(fields[0]) >> 3 == 0:  # others come from user space
                lines.append(message.split(b"\n", 1)[0].decode("utf-8", "replace"))
    finally:
        os.close(fd)
    return lines, lost


def _log_file(reader):
    for path in ("/var/log/dmesg", "/dmesg"):
        text = reader.read_text(path, 4 << 20, record=False)
        if text is not None:
            return text.splitlines()
    return None


def kernel_log(reader, patterns, redactor, said):
    """(lines of interest, source)."""
    lines, source = texts_of(said, "kernel_log"), "recorded"
    if lines is None and reader.live:
        source = "kmsg"
        try:
            lines, lost = _kmsg()
            if lost:
                reader.note("beginning of the kernel log", "overwritten by later messages")
        except OSError as e:
            why = reason(e)
            text, code = run(["dmesg"], 5)
            lines = text.splitlines() if code == 0 and text else None
            if lines is None:
                lines, source = _log_file(reader), "file"
            if lines is None:
                reader.note("kernel log", why)
    elif lines is None:
        lines, source = _log_file(reader), "file"
        if lines is None:
            reader.note("kernel log", "not there")
    if lines is None:
        return [], ""
    wanted = []
    for pattern in patterns:
        try:
            wanted.append(re.compile(pattern).search)
        except re.error:
            reader.note("kernel log lines like " + pattern, "not a regular expression")
    out = []
    for raw in lines:
        line = _STAMP.sub("", raw)[:4096]
        if any(search(line) for search in wanted):
            out.append(clean(redactor.words(line), LOG_WIDTH))
            if len(out) == LOG_LINES:
                break
    return out, source


# Processor


def cpuinfo(reader, interest, arch):
    """(vendor, flags of interest or None, platform)."""
    limit = (4 << 20) if (arch or "").startswith("ppc") else 65536
    text = reader.read_text("/proc/cpuinfo", limit, "/proc/cpuinfo", record=False)
    if text is None:
        return "", None, ""
    values = {}
    kept = []
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip()
        if colon and key not in values and _CPUINFO.match(line):
            values[key] = value.strip()
            kept.append(line)
    found = re.search(r"\bmachine = (\w+)", text)
    if found and "platform" not in values:
        kept.append("processor 0: machine = " + found.group(1))
    reader.keep("/proc/cpuinfo", "\n".join(kept) + "\n")
    vendor = values.get("vendor_id") or values.get("CPU implementer") or values.get("mvendorid") or ""
    have = set((values.get("flags") or values.get("Features") or values.get("features") or "").split())
    platform = values.get("platform") or (found.group(1) if found else "")
    return clean(vendor), sorted(have.intersection(interest.get("cpu_flags", []))), clean(platform)


def leaf_of(number, data):
    """One CPUID leaf (eax, ebx, ecx, edx as 16 bytes) as a fact, or ``None`` when it is no signature."""
    signature = data[4:16].rstrip(b"\0")
    if len(data) != 16 or len(signature) < 4 or any(not 32 <= b < 127 for b in bytearray(signature)):
        return None
    return {
        "leaf": "0x%08x" % number,
        "signature": signature.decode("ascii"),
        "max_leaf": "0x%08x" % struct.unpack("<I", data[:4])[0],
    }


def cpuid(reader, arch, flags, said):
    """(hypervisor leaves, source, what lscpu says)."""
    told = said.get("cpuid")
    if isinstance(told, list):
        leaves = [
            {"leaf": text_of(d, "leaf"), "signature": text_of(d, "signature"), "max_leaf": text_of(d, "max_leaf")}
            for d in told[:256]
            if isinstance(d, dict)
        ]
        return leaves, "recorded", text_of(said, "lscpu_hypervisor")
    if not reader.live:
        return [], "", text_of(said, "lscpu_hypervisor")
    if arch not in ("x86_64", "i686", "i586", "i386") or (flags is not None and "hypervisor" not in flags):
        return [], "", ""
    numbers = range(0x40000000, 0x4000FF01, 0x100)
    try:
        fd = os.open("/dev/cpu/0/cpuid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = [leaf_of(n, os.pread(fd, 16, n)) for n in numbers]
        finally:
            os.close(fd)
        return [leaf for leaf in found if leaf is not None], "device", ""
    except OSError:
        pass  # no such module, or not root
    try:
        found = [leaf_of(n, data) for n, data in instruction.leaves(numbers)]
        return [leaf for leaf in found if leaf is not None], "instruction", ""
    except (OSError, ImportError, ValueError) as e:
        reader.note("CPUID", reason(e) if isinstance(e, OSError) else str(e))
    text = run(["lscpu"], 5)[0] or ""
    m = re.search(r"^Hypervisor vendor:\s*(.+)$", text, re.M)
    return [], "lscpu" if m else "", clean(m.group(1)) if m else ""


# Firmware


def dmi(reader, names, arch):
    """DMI strings of interest; never serial numbers or UUIDs."""
    base = "/sys/class/dmi/id"
    if not reader.exists(base):
        if (arch or "").startswith(("x86", "i")):
            reader.note("DMI", "not there")
        return {}
    out = {}
    for name in names:
        if re.search(r"serial|uuid", name) is None and re.match(r"\w+$", name):
            value = reader.line(base + "/" + name, 200)
            if value:
                out[name] = value
    return out


def smbios_vm(reader, said):
    """SMBIOS type 0, extension byte 2, bit 4."""
    if isinstance(said.get("smbios_vm"), bool):
        return said["smbios_vm"]
    raw = reader.read_bytes("/sys/firmware/dmi/entries/0-0/raw", 64, record=False)
    return bool(raw[19] & 0x10) if raw is not None and len(raw) > 19 else None


def acpi(reader, tables):
    """Identity of ACPI tables."""
    out = []
    for table in tables:
        head = reader.read_bytes("/sys/firmware/acpi/tables/" + table, 276)
        if head is None or len(head) < 36 or not re.match(r"\w+$", table):
            continue
        length, revision = struct.unpack("<IB", head[4:9])
        hypervisor = head[268:276] if table == "FACP" and revision >= 6 and min(length, len(head)) >= 276 else b""
        out.append(
            {
                "table": table,
                "oem_id": clean(head[10:16]),
                "oem_table_id": clean(head[16:24]),
                "hypervisor_id": clean(hypervisor),
            }
        )
    return out


def _strings(data):
    return [clean(part, 200) for part in (data or b"").split(b"\0") if part][:64]


def device_tree(reader, names):
    """Marks in the device tree."""
    base = "/proc/device-tree"
    if not reader.exists(base):
        return {}
    nodes = []
    for name in names:
        if any(c in name for c in "*?"):
            nodes.extend(
                n for n in reader.listdir(base) if fnmatch.fnmatchcase(n, name) and reader.exists(base + "/" + n)
            )
        elif reader.exists(base + "/" + name):
            nodes.append(name)
    return {
        "present": True,
        "model": clean(reader.read_bytes(base + "/model", 256) or b"", 200),
        "compatible": _strings(reader.read_bytes(base + "/compatible", 4096)),
        "hypervisor_compatible": _strings(reader.read_bytes(base + "/hypervisor/compatible", 4096)),
        "nodes": sorted(set(nodes))[:64],
    }


def xen(reader):
    """/sys/hypervisor and /proc/xen."""
    base = "/sys/hypervisor"
    capabilities = reader.line("/proc/xen/capabilities")
    if not reader.exists(base):
        return {"capabilities": capabilities}
    version = [reader.line(base + "/version/" + n, 60) for n in ("major", "minor", "extra")]
    initdomain = reader.line(base + "/start_flags/initdomain", 8)
    return {
        "type": reader.line(base + "/type", 60),
        "guest_type": reader.line(base + "/guest_type", 60),
        "features": reader.line(base + "/properties/features", 60),
        "initdomain": initdomain == "1" if initdomain in ("0", "1") else None,
        "capabilities": capabilities,
        "version": version[0] + "." + version[1] + version[2] if version[0] and version[1] else "",
    }


# Answers of others


def detect_virt(reader, said):
    """What systemd says."""
    if not reader.live or isinstance(said.get("detect_virt"), dict):
        told = said.get("detect_virt") if isinstance(said.get("detect_virt"), dict) else {}
        return {k: text_of(told, k) for k in ("vm", "container", "cvm", "version")}
    out = {"vm": "", "container": "", "cvm": "", "version": ""}
    if not find_tool("systemd-detect-virt"):
        return out
    text = run(["systemd-detect-virt", "--version"], 5)[0] or ""
    m = re.match(r"systemd ([0-9]+)", text)
    out["version"] = m.group(1) if m else ""
    for kind in ("vm", "container", "cvm"):
        if kind == "cvm" and out["version"].isdigit() and int(out["version"]) < 254:
            continue  # the option came with 254
        text = run(["systemd-detect-virt", "--" + kind], 5)[0] or ""
        word = clean(text, 60)
        out[kind] = word if re.match(r"[a-z0-9-]+$", word) else ""
    return out


def container(reader, markers):
    """Namespaces and marker files."""
    manager = reader.line("/run/host/container-manager", 60) or reader.line("/run/systemd/container", 60)
    if not manager and reader.live:
        for word in (reader.read("/proc/1/environ", 65536, record=False)[0] or b"").split(b"\0"):
            if word.startswith(b"container="):
                manager = clean(word[10:], 60)
    return {
        "pid_ns": clean(reader.readlink("/proc/self/ns/pid"), 60),
        "user_ns": clean(reader.readlink("/proc/self/ns/user"), 60),
        "markers": [path for path in markers if reader.exists(path)],
        "manager": manager,
        "osrelease": reader.line("/proc/sys/kernel/osrelease", 200),
    }


def existing(reader, paths, told):
    """Those of the paths that exist (a pattern: if anything matches), on a record those that it names."""
    if told is not None:
        return [p for p in paths if p in told]
    return [p for p in paths if (reader.glob(p) if "*" in p else reader.exists(p))]


def signals(reader, interest, devices, redactor, said):
    """The whole section."""
    arch = machine(reader, said)
    vendor, flags, platform = cpuinfo(reader, interest, arch)
    leaves, cpuid_source, lscpu = cpuid(reader, arch, flags, said)
    log, log_source = kernel_log(reader, interest.get("kernel_log", []), redactor, said)
    clock = "/sys/devices/system/clocksource/clocksource0/"
    sysinfo = reader.read_text("/proc/sysinfo", 65536, record=False)
    lines = [clean(line, 200) for line in (sysinfo or "").splitlines() if _SYSINFO.match(line)][:64]
    if sysinfo is not None:
        reader.keep("/proc/sysinfo", "\n".join(lines) + "\n")
    return {
        "machine": arch,
        "cpuid": leaves,
        "cpuid_source": cpuid_source,
        "lscpu_hypervisor": lscpu,
        "cpu_vendor": vendor,
        "cpu_flags": flags,
        "cpu_platform": platform,
        "kernel_log": log,
        "kernel_log_source": log_source,
        "dmi": dmi(reader, interest.get("dmi", []), arch),
        "smbios_vm": smbios_vm(reader, said),
        "acpi": acpi(reader, interest.get("acpi_tables", [])),
        "device_tree": device_tree(reader, interest.get("device_tree_nodes", [])),
        "xen": xen(reader),
        "sysinfo": lines,
        "buses": devices.buses(interest.get("buses", [])),
        "devices": existing(reader, interest.get("devices", []), texts_of(said, "devices")),
        "clocksource": reader.line(clock + "current_clocksource", 60),
        "clocksources": reader.line(clock + "available_clocksource").split()[:32],
        "detect_virt": detect_virt(reader, said),
        "container": container(reader, interest.get("container_markers", [])),
    }
