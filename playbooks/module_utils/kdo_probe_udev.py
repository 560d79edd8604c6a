# SPDX-License-Identifier: Apache-2.0
"""Devices, seen through pyudev, ``udevadm`` or sysfs with udev's own files: three sources, one shape.

A device is {devpath, subsystem, sysname, driver, devtype, properties, below}; ``below`` holds the devices that a
block device is made of. Devices without a subsystem do not count, as in udev itself.
"""

import posixpath
import re

try:
    from ansible.module_utils.kdo_probe_reader import clean, run, whole
except ImportError:
    from kdo_probe_reader import clean, run, whole

PROPERTIES = (
    "ID_FS_UUID",
    "ID_FS_LABEL",
    "ID_FS_TYPE",
    "DM_UUID",
    "DM_NAME",
    "ID_NET_DRIVER",
    "MAJOR",
    "MINOR",
    "DEVNAME",
)
MAX_CHAIN = 64
MAX_DEVICES = 256


def sysname(devpath):
    """Name of a device as udev gives it."""
    return devpath.rsplit("/", 1)[-1].replace("!", "/")


def _shape(devpath, subsystem, driver, devtype, properties):
    kept = {k: clean(properties[k], 256) for k in PROPERTIES if properties.get(k)}
    if "DEVNAME" in kept and not kept["DEVNAME"].startswith("/"):
        kept["DEVNAME"] = "/dev/" + kept["DEVNAME"]
    return {
        "devpath": clean(devpath, 1024),
        "subsystem": clean(subsystem, 64),
        "sysname": clean(sysname(devpath), 255),
        "driver": clean(driver or "", 64),
        "devtype": clean(devtype or "", 64),
        "properties": kept,
    }


def _devpath_of(reader, link):
    """Device path that a link in sysfs leads to, or empty."""
    target = reader.readlink(link)
    if not target:
        return ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(link), target))
    return path[4:] if path.startswith("/sys/devices/") else ""


class TreeSource(object):
    """sysfs and /run/udev/data."""

    name = "tree"

    def __init__(self, reader):
        self.reader = reader

    def list(self, subsystem):
        for folder in ("/sys/class/%s" % subsystem, "/sys/bus/%s/devices" % subsystem):
            names = self.reader.listdir(folder)
            if names:
                found = [_devpath_of(self.reader, folder + "/" + name) for name in names]
                return sorted(path for path in found if path)
        return []

    def get(self, devpath):
        base = "/sys" + devpath
        subsystem = posixpath.basename(self.reader.readlink(base + "/subsystem"))
        data = self.reader.read_bytes(base + "/uevent", 8192) if subsystem else None
        if data is None:
            return None
        properties = _pairs(data.decode("utf-8", "replace").splitlines())
        entry = ""
        if subsystem == "block" and "MAJOR" in properties:
            entry = "b%s:%s" % (properties["MAJOR"], properties.get("MINOR", ""))
        elif subsystem == "net" and "IFINDEX" in properties:
            entry = "n" + properties["IFINDEX"]
        if entry and "/" not in entry:
            found = self.reader.read_bytes("/run/udev/data/" + entry, 16384, record=False)
            lines = (found or b"").decode("utf-8", "replace").splitlines()
            for key, value in _pairs(line[2:] for line in lines if line.startswith("E:")).items():
                properties.setdefault(key, value)
        driver = posixpath.basename(self.reader.readlink(base + "/driver"))
        return _shape(devpath, subsystem, driver, properties.get("DEVTYPE"), properties)


def _pairs(lines):
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines if "=" in line}


class UdevadmSource(object):
    """``udevadm info --export-db``, or a recorded sample of it."""

    name = "udevadm"

    def __init__(self, text):
        self.found = {}
        self.by_subsystem = {}
        for block in text.split("\n\n"):
            devpath = ""
            properties = {}
            for line in block.splitlines():
                if line.startswith("P: "):
                    devpath = line[3:].strip()
                elif line.startswith("E: "):
                    key, _, value = line[3:].partition("=")
                    properties[key] = value
            if devpath.startswith("/devices/") and properties.get("SUBSYSTEM"):
                self.found[devpath] = properties
                self.by_subsystem.setdefault(properties["SUBSYSTEM"], []).append(devpath)

    def list(self, subsystem):
        return sorted(self.by_subsystem.get(subsystem, []))

    def get(self, devpath):
        found = self.found.get(devpath)
        if found is None:
            return None
        return _shape(devpath, found["SUBSYSTEM"], found.get("DRIVER"), found.get("DEVTYPE"), found)


class PyudevSource(object):
    """libudev through pyudev."""

    name = "pyudev"

    def __init__(self):
        import pyudev

        self.pyudev = pyudev
        self.context = pyudev.Context()

    def list(self, subsystem):
        found = [d.device_path for d in self.context.list_devices(subsystem=subsystem)]
        return sorted(path for path in found if path.startswith("/devices/"))

    def get(self, devpath):
        try:
            device = self.pyudev.Devices.from_sys_path(self.context, "/sys" + devpath)
            if not device.subsystem:
                return None
            properties = {k: device.properties[k] for k in PROPERTIES if k in device.properties}
            return _shape(devpath, device.subsystem, device.driver, device.device_type, properties)
        except (self.pyudev.DeviceNotFoundError, UnicodeError, OSError, ValueError, KeyError):
            return None


class RecordedSource(object):
    """The devices in a record."""

    name = "tree"

    def __init__(self, devices):
        self.found = {}
        for d in devices[:4096]:
            if not isinstance(d, dict) or not isinstance(d.get("devpath"), str):
                continue
            properties = d.get("properties") if isinstance(d.get("properties"), dict) else {}
            shaped = _shape(d["devpath"], d.get("subsystem", ""), d.get("driver"), d.get("devtype"), properties)
            below = d.get("below") if isinstance(d.get("below"), list) else []
            shaped["below"] = [str(b) for b in below[:MAX_DEVICES]]
            self.found[d["devpath"]] = shaped

    def list(self, subsystem):
        return sorted(p for p, d in self.found.items() if d["subsystem"] == subsystem)

    def get(self, devpath):
        return self.found.get(devpath)


def choose_source(reader, wanted, said):
    """The source that was asked for, or the best that works here."""
    if isinstance(said.get("udev"), list):
        return RecordedSource(said["udev"])
    if not reader.live or reader.root != "/":
        if wanted in ("pyudev", "udevadm"):
            reader.note("devices through " + wanted, "it looks at the running system only")
        return TreeSource(reader)
    if wanted in ("auto", "pyudev"):
        try:
            return PyudevSource()
        except (ImportError, OSError, AttributeError):
            if wanted == "pyudev":
                reader.note("devices through pyudev", "not installed")
    if wanted in ("auto", "udevadm"):
        text = run(["udevadm", "info", "--export-db"], 10, 64 << 20)[0]
        source = UdevadmSource(text) if text else None
        if source is not None and source.found:
            return source
        if wanted == "udevadm":
            reader.note("devices through udevadm", "no answer" if text is not None else "not installed")
    return TreeSource(reader)


def over_network(devpath, reader):
    """Which network protocol a block device is reached by; empty for a device of this machine."""
    if re.search(r"/session\d+/target", devpath):
        return "iscsi"
    name = re.search(r"/block/(nbd|rbd|drbd)\d", devpath)
    if name:
        return name.group(1)
    controller = re.match(r"(.*/nvme\d+)(?:/|\Z)", devpath)
    if controller and reader.line("/sys" + controller.group(1) + "/transport", 20) in ("tcp", "rdma"):
        return "nvme"
    return ""


class Devices(object):
    """What the document wants to know of devices, whatever the source."""

    def __init__(self, source, reader, said=None):
        self.source = source
        self.reader = reader
        self.told = (said or {}).get("buses")
        self.seen = {}

    def get(self, devpath):
        if devpath not in self.seen:
            device = self.source.get(devpath)
            if device is not None and "below" not in device:
                device["below"] = self._below(device)
                if device["sysname"].startswith("dm-"):
                    for key, name in (("DM_UUID", "uuid"), ("DM_NAME", "name")):
                        value = self.reader.line("/sys" + devpath + "/dm/" + name, 256)
                        if value:
                            device["properties"][key] = value
            self.seen[devpath] = device
        return self.seen[devpath]

    def _below(self, device):
        base = "/sys" + device["devpath"]
        if device["subsystem"] == "block":
            links = [base + "/slaves/" + n for n in self.reader.listdir(base + "/slaves")]
        elif device["subsystem"] == "nvme-subsystem":
            links = [base + "/" + n for n in self.reader.listdir(base) if re.match(r"nvme[0-9]+$", n)]
        else:
            return []
        return [path for path in (_devpath_of(self.reader, link) for link in links[:MAX_DEVICES]) if path]

    def parent(self, devpath):
        path = posixpath.dirname(devpath)
        while len(path) > len("/devices"):
            device = self.get(path)
            if device is not None:
                return device
            path = posixpath.dirname(path)
        return None

    def buses(self, names):
        """Devices per bus; a bus that the kernel does not know is left out."""
        if isinstance(self.told, dict):
            return {n: self.told[n] for n in names if whole(self.told.get(n)) is not None}
        return {n: len(self.source.list(n)) for n in names if self.reader.exists("/sys/bus/" + n)}

    def network(self):
        """Interfaces but the loopback, with the driver of the hardware below or the one udev names."""
        out = []
        for devpath in self.source.list("net")[:MAX_DEVICES]:
            device = self.get(devpath)
            if device is None or device["sysname"] == "lo":
                continue
            parent = self.parent(devpath)
            driver = parent["driver"] if parent is not None and parent["driver"] else ""
            out.append({"name": device["sysname"], "driver": driver or device["properties"].get("ID_NET_DRIVER", "")})
        return sorted(out, key=lambda d: d["name"])

    def block(self, number, source):
        """Device path of a block device by its number, else by the name that it is mounted by."""
        if isinstance(self.source, RecordedSource):
            for devpath in self.source.list("block"):
                p = self.source.get(devpath)["properties"]
                if "%s:%s" % (p.get("MAJOR", ""), p.get("MINOR", "")) == number:
                    return devpath
        elif not number.startswith("0:"):
            found = _devpath_of(self.reader, "/sys/dev/block/" + number)
            if found:
                return found
        if not source.startswith("/dev/"):
            return ""
        names = [posixpath.basename(source)]
        if source.startswith("/dev/mapper/"):
            link = posixpath.basename(self.reader.readlink(source))
            names.insert(0, link or names[0])
        for devpath in self.source.list("block"):
            if (
                sysname(devpath) in names
                or (self.get(devpath) or {"properties": {}})["properties"].get("DM_NAME") in names
            ):
                return devpath
        return ""

    def chain(self, devpath):
        """The devices from this one down to hardware: block devices, then what drives them."""
        out = []
        done = set()
        todo = [devpath]
        while todo and len(out) < MAX_CHAIN:
            path = todo.pop(0)
            device = self.get(path) if path and path not in done else None
            done.add(path)
            if device is None:
                continue
            if device["subsystem"] == "block" or device["driver"]:
                p = device["properties"]
                out.append(
                    {
                        "name": device["sysname"],
                        "devtype": device["devtype"],
                        "driver": device["driver"],
                        "dm_kind": p.get("DM_UUID", "").split("-", 1)[0],
                        "fs_type": p.get("ID_FS_TYPE", ""),
                        "network": over_network(path, self.reader),
                    }
                )
            parent = self.parent(path)
            todo.extend(device["below"] or ([parent["devpath"]] if parent is not None else []))
        return out
