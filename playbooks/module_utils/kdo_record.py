# SPDX-License-Identifier: Apache-2.0
"""A record of a host that can be shared: a tree of files from which the probe makes the same document again.

Taken out: serial numbers, secrets, SSH keys, addresses, UUIDs, names of the host. The same UUID or address gets the
same stand-in everywhere in one record, so what belongs together still does.
"""

import base64
import ipaddress
import json
import re

try:
    from ansible.module_utils.kdo_probe_redact import BLANK, Redactor
    from ansible.module_utils.kdo_probe_mounts import mount_of, mounts
except ImportError:
    from kdo_probe_redact import BLANK, Redactor
    from kdo_probe_mounts import mount_of, mounts

AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"
NEVER = ("/dev/", "/proc/kcore", "/run/udev/", "/etc/ssh/", "/root/", "/home/")
# Texts in which four numbers with dots are a version.
VERSIONS = (
    "/sys/class/dmi/",
    "/sys/devices/virtual/dmi/",
    "/etc/os-release",
    "/usr/lib/os-release",
    "/proc/version",
    "/proc/sys/",
)
KNOWN_UUIDS = frozenset(["8be4df61-93ca-11d2-aa0d-00e098032b8c"])  # the vendor of EFI's own variables
# Names that identify nobody, and words that a platform is told by.
COMMON = frozenset(
    "localhost localdomain host guest vm kvm qemu xen linux debian ubuntu fedora centos rhel suse arch azure amazon aws "
    "google hyper microsoft vmware root kernel lpar boot crash kdump (none)".split()
)
_UUID = re.compile(
    r"(?<![0-9A-Za-z])([0-9A-Fa-f]{8})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{12})(?![0-9A-Za-z])"
)
_MACHINE_ID = re.compile(r"(?<![0-9A-Za-z])[0-9a-fA-F]{32}(?![0-9A-Za-z])")
_FAT_UUID = re.compile(r"(?<=UUID=)\"?[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}(?![0-9A-Za-z-])")
_BY_ID = re.compile(r"(/dev/disk/by-(?:id|path|label|partlabel)/)[^\s\"',:]+")
_LABEL = re.compile(r"\b((?:PART)?LABEL=)[^\s\"',]+")
_SERIAL = re.compile(
    r"(?i)\b((?:serial(?:[ _-]?number)?|asset[ _-]?tag|s/n|wwn|wwid|iqn)[ \t]*[:=][ \t]*)(?!tty|--)[^\s\"',;]+"
)
_IQN = re.compile(r"\b(?:iqn|nqn)\.[0-9]{4}-[0-9]{2}\.[^\s\"',]+")
_MAC = re.compile(
    r"(?<![0-9A-Fa-f:.-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4,5}(?![0-9A-Fa-f:-])"
)
_IPV4 = re.compile(r"(?<![0-9A-Za-z.-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z.])")
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![0-9A-Za-z:])")
_SSH_KEY = re.compile(
    r"\b((?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-\S+|sk-\S+@openssh\.com)\s+)[A-Za-z0-9+/=]{16,}(?:[ \t]+\S+@\S+)?"
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


class Sanitiser(object):
    """Gives stand-ins, the same one for the same original."""

    def __init__(self, names=(), redactor=None):
        self.redactor = redactor or Redactor()
        self.given = {}
        self.counts = {}
        words = set()
        for name in names:
            for word in (name, name.split(".", 1)[0], name.partition(".")[2]):
                words.update((word, word.replace("-", "--")))
        words = sorted(
            (w for w in words if len(w) > 1 and w.lower() not in COMMON and not w.isdigit()), key=lambda w: (-len(w), w)
        )
        self.names = (
            re.compile(r"(?<![A-Za-z0-9])(?:%s)(?![A-Za-z0-9])" % "|".join(re.escape(w) for w in words))
            if words
            else None
        )

    def _number(self, kind, original):
        key = (kind, original)
        if key not in self.given:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.given[key] = self.counts[kind]
        return self.given[key]

    def _uuid(self, m):
        text = m.group(0)
        plain = text.replace("-", "").lower()
        if text.lower() in KNOWN_UUIDS or not plain.strip("0"):
            return text
        number = "%012d" % self._number("uuid", plain)
        return "00000000-0000-4000-8000-" + number if "-" in text else "00000000000040008000" + number

    def _ipv4(self, m):
        try:
            address = ipaddress.IPv4Address(m.group(0))
        except ValueError:
            return m.group(0)
        if address.is_loopback or address.is_unspecified or m.group(0).startswith("255."):
            return m.group(0)
        return "192.0.2.%d" % (self._number("ipv4", m.group(0)) % 254 + 1)

    def _ipv6(self, m):
        try:
            address = ipaddress.IPv6Address(m.group(0))
        except ValueError:
            return m.group(0)
        if address.is_loopback or address.is_unspecified:
            return m.group(0)
        return "2001:db8::%x" % self._number("ipv6", str(address))

    def _mac(self, m):
        number = self._number("mac", re.sub("[:-]", "", m.group(0)).lower()[-12:])
        return m.group(1).join(["02", "00", "00", "00", "%02x" % (number >> 8 & 255), "%02x" % (number & 255)])

    def text(self, text, versions=False):
        """A text with the same number of lines."""
        text = self.redactor.text(text)[0]
        text = _SSH_KEY.sub(r"\1" + BLANK, text)
        text = _UUID.sub(self._uuid, text)
        text = _MACHINE_ID.sub(self._uuid, text)
        text = _FAT_UUID.sub(lambda m: "%08X" % self._number("fat", m.group(0).upper()), text)
        text = re.sub(r"(UUID=)([0-9A-F]{4})([0-9A-F]{4})(?![0-9A-Za-z-])", r"\1\2-\3", text)
        text = _BY_ID.sub(r"\1" + BLANK, text)
        text = _LABEL.sub(r"\1" + BLANK, text)
        text = _IQN.sub(BLANK, text)
        text = _SERIAL.sub(r"\1" + BLANK, text)
        text = _MAC.sub(self._mac, text)
        if not versions:
            text = _IPV4.sub(self._ipv4, text)
            text = _IPV6.sub(self._ipv6, text)
            text = _MAIL.sub("user@host", text)
        return self.names.sub("host", text) if self.names else text

    def line(self, text):
        """A single value, by the same rules."""
        return self.text(text).replace("\n", " ")


def _mounts(text, targets):
    """The lines that say where the targets and the root are; other mounts are nobody's business."""
    lines = text.splitlines()
    table = mounts(text)
    if len(table) != len([line for line in lines if " - " in line]):
        return ""
    wanted = [mount_of(path, table) for path in ["/"] + targets] + [
        mount_of(t["point"], table) for t in table if t["point"] == "/"
    ]
    out = []
    for line, mount in zip([line for line in lines if " - " in line], table):  # noqa: B905 - Python 3.6
        if not any(mount is w for w in wanted):
            continue
        left, _, right = line.partition(" - ")
        a, b = left.split(" "), right.split(" ")
        remote = b[1].startswith("//") or (":" in b[1] and not b[1].startswith("/"))
        source = "server:/export" if remote else b[1]
        options = "ro" if mount["read_only"] else "rw"
        out.append(" ".join(a[:5] + [options, "-", b[0], source, options]))
    return "\n".join(out) + "\n"


def _content(path, text, s, targets):
    if path == "/proc/self/mountinfo":
        text = _mounts(text, targets)
    if path.endswith("/chassis_asset_tag"):
        return text if text.strip() == AZURE_TAG else "\n"
    if path in ("/proc/kallsyms", "/proc/iomem", "/proc/modules"):
        return text  # reduced when it was read
    return s.text(text, path.startswith(VERSIONS))


def _device(d, s):
    p = {k: v for k, v in d["properties"].items() if k not in ("ID_FS_UUID", "ID_FS_LABEL", "DM_UUID", "DM_NAME")}
    if "DM_UUID" in d["properties"]:
        p["DM_UUID"] = d["properties"]["DM_UUID"].split("-", 1)[0] + "-"
    for key in ("ID_FS_LABEL", "DM_NAME"):
        if key in d["properties"]:
            p[key] = s.line(d["properties"][key])
    if "ID_FS_UUID" in d["properties"]:
        uuid = s.line(d["properties"]["ID_FS_UUID"])
        p["ID_FS_UUID"] = (
            uuid
            if uuid.startswith("00000000-0000-4000")
            else "%04X-%04X" % divmod(s._number("fat", uuid.upper()), 65536)
        )
    return dict(d, properties=p)


def signals_of(facts, devices, s):
    """What files cannot hold, in the words of ``.kdo/signals.json``."""
    seen = facts["signals"]
    out = {
        "machine": seen["machine"],
        "cpuid": seen["cpuid"],
        "lscpu_hypervisor": seen["lscpu_hypervisor"],
        "kernel_log": [s.line(line) for line in seen["kernel_log"]],
        "smbios_vm": seen["smbios_vm"],
        "buses": seen["buses"],
        "devices": seen["devices"],
        "detect_virt": seen["detect_virt"],
        "crash_shutdown": facts["kernel"]["crash_shutdown"],
        "memory": facts["memory"],
        "targets": {
            t["path"]: {"size": t["size"], "free": t["free"], "exists": t["exists"]}
            for t in facts["targets"]
            if t["path"].startswith("/")
        },
        "tools": facts["boot"]["tools"],
        "kargs": s.line(facts["boot"]["kargs"]),
        "packages": facts["packages"],
        "package_manager": facts["package_manager"],
        "available": facts["available"],
        "services": facts["services"],
        "euid": facts["probe"]["euid"],
        "udev": [_device(d, s) for d in devices if d is not None],
    }
    if not seen["cpuid_source"]:
        del out["cpuid"]
    if not seen["kernel_log_source"]:
        del out["kernel_log"]
    return out


def sanitise(tree, facts, devices=(), names=(), unsafe_keys=""):
    """The recorded tree as entries that can be shared, ``.kdo/signals.json`` among them."""
    s = Sanitiser([n for n in list(names) + [facts.get("host", "")] if n], Redactor(unsafe_keys))
    targets = [t["path"] for t in facts["targets"]]
    out = {}
    for path in sorted(tree):
        entry = tree[path]
        if path.startswith(NEVER) or re.search(r"/(product|board|chassis)_(serial|uuid)$", path):
            continue
        new = {"type": entry["type"]}
        if entry["type"] == "link":
            new["text"] = s.line(entry["text"])
        elif entry["type"] == "file" and "b64" in entry:
            if not path.startswith(("/sys/firmware/", "/proc/", "/boot/config-", "/lib/modules/", "/usr/lib/modules/")):
                head = base64.b64decode(entry["b64"])[:20]  # elsewhere no more than what tells the machine
                new["b64"] = base64.b64encode(head if head[:4] == b"\x7fELF" else b"").decode("ascii")
            else:
                new["b64"] = entry["b64"]
        elif entry["type"] == "file":
            new["text"] = _content(path, entry.get("text", ""), s, targets)
        out[s.line(path)] = new
    text = json.dumps(signals_of(facts, devices, s), indent=1, sort_keys=True)
    out["/.kdo/signals.json"] = {"type": "file", "text": text + "\n"}
    return out
