# SPDX-License-Identifier: Apache-2.0
"""The running system: the document, its three sources of devices, and a record that can be replayed."""

import base64
import json
import os
import sys
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "playbooks" / "module_utils"
sys.path.insert(0, str(UTILS))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import kdo_probe  # noqa: E402
import kdo_probe_udev  # noqa: E402
from kdo_probe_mounts import mount_of, mounts, targets  # noqa: E402
from kdo_probe_reader import Reader  # noqa: E402
from kdo_probe_udev import Devices, PyudevSource, TreeSource, UdevadmSource, choose_source  # noqa: E402
from kdo_record import Sanitiser, sanitise  # noqa: E402
from test_probe_trees import check, debian, link, put  # noqa: E402

from orchestrator.fleet.collect import interest  # noqa: E402
from orchestrator.fleet.record import write_tree  # noqa: E402

# A partition of an NVMe disk, LUKS on it, LVM on that; a virtio network card and a bridge. As udevadm of 252 and 257 say it.
EXPORT = """\
P: /devices/pci0000:00/0000:00:04.0
E: DEVPATH=/devices/pci0000:00/0000:00:04.0
E: SUBSYSTEM=pci
E: DRIVER=nvme
E: PCI_CLASS=10802

P: /devices/pci0000:00/0000:00:04.0/nvme/nvme0
M: nvme0
U: nvme
E: SUBSYSTEM=nvme
E: MAJOR=242
E: MINOR=0
E: DEVNAME=/dev/nvme0

P: /devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1
N: nvme0n1
L: 0
S: disk/by-id/nvme-SERIAL0001
E: SUBSYSTEM=block
E: DEVTYPE=disk
E: DEVNAME=/dev/nvme0n1
E: MAJOR=259
E: MINOR=0
E: ID_SERIAL=SERIAL0001

P: /devices/pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p2
N: nvme0n1p2
E: SUBSYSTEM=block
E: DEVTYPE=partition
E: DEVNAME=/dev/nvme0n1p2
E: MAJOR=259
E: MINOR=2
E: ID_FS_TYPE=crypto_LUKS
E: ID_FS_UUID=11111111-2222-3333-4444-555555555555

P: /devices/virtual/block/dm-0
M: dm-0
U: block
T: disk
E: SUBSYSTEM=block
E: DEVTYPE=disk
E: DEVNAME=/dev/dm-0
E: MAJOR=253
E: MINOR=0
E: DM_UUID=CRYPT-LUKS2-11111111222233334444555555555555-luks
E: DM_NAME=luks
E: ID_FS_TYPE=LVM2_member

P: /devices/virtual/block/dm-1
E: SUBSYSTEM=block
E: DEVTYPE=disk
E: DEVNAME=/dev/dm-1
E: MAJOR=253
E: MINOR=1
E: DM_UUID=LVM-abcdef
E: DM_NAME=vg-root
E: ID_FS_TYPE=ext4
E: ID_FS_UUID=66666666-2222-3333-4444-555555555555
E: ID_FS_LABEL=top=1

P: /devices/pci0000:00/0000:00:05.0/virtio2
E: SUBSYSTEM=virtio
E: DRIVER=virtio_net
E: MODALIAS=virtio:d00000001v00001AF4

P: /devices/pci0000:00/0000:00:05.0/virtio2/net/ens5
E: SUBSYSTEM=net
E: INTERFACE=ens5
E: IFINDEX=2
E: ID_NET_DRIVER=virtio_net

P: /devices/virtual/net/br0
E: SUBSYSTEM=net
E: DEVTYPE=bridge
E: INTERFACE=br0
E: IFINDEX=3
E: ID_NET_DRIVER=bridge

P: /devices/virtual/net/lo
E: SUBSYSTEM=net
E: INTERFACE=lo
E: IFINDEX=1

P: /module/nvme
E: SUBSYSTEM=module
"""
FROM_KERNEL = ("MAJOR", "MINOR", "DEVTYPE", "DRIVER", "INTERFACE", "IFINDEX", "PCI_CLASS", "MODALIAS")


def sysfs(root):
    """The same devices as sysfs and udev's own files have them."""
    for devpath, p in UdevadmSource(EXPORT).found.items():
        base = "/sys" + devpath
        up = "../" * (devpath.count("/") - 1)
        lines = [f"{k}={v}" for k, v in p.items() if k in FROM_KERNEL]
        if "DEVNAME" in p:
            lines.append("DEVNAME=" + p["DEVNAME"][5:])
            link(root, f"/sys/dev/block/{p['MAJOR']}:{p['MINOR']}", "../.." + devpath)
        put(root, base + "/uevent", "\n".join(lines) + "\n")
        bus = p["SUBSYSTEM"] in ("pci", "virtio")
        link(root, base + "/subsystem", f"{up}../{'bus' if bus else 'class'}/{p['SUBSYSTEM']}")
        if "DRIVER" in p:
            link(root, base + "/driver", f"{up}../bus/{p['SUBSYSTEM']}/drivers/{p['DRIVER']}")
        if bus:
            link(root, f"/sys/bus/{p['SUBSYSTEM']}/devices/{devpath.rsplit('/', 1)[1]}", "../../.." + devpath)
        else:
            link(root, f"/sys/class/{p['SUBSYSTEM']}/{devpath.rsplit('/', 1)[1]}", "../.." + devpath)
        name = f"b{p['MAJOR']}:{p['MINOR']}" if p["SUBSYSTEM"] == "block" else "n" + p.get("IFINDEX", "0")
        rest = "".join(
            f"E:{k}={v}\n" for k, v in p.items() if k not in (*FROM_KERNEL, "SUBSYSTEM", "DEVNAME", "DEVPATH")
        )
        put(root, "/run/udev/data/" + name, "S:disk/by-id/x\nI:123\n" + rest + "G:systemd\n")
    put(root, "/sys/devices/pci0000:00/uevent", "")  # no subsystem: no device
    put(root, "/sys/class/net/bonding_masters", "")
    put(root, "/sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-11111111222233334444555555555555-luks\n")
    put(root, "/sys/devices/virtual/block/dm-0/dm/name", "luks\n")
    link(
        root,
        "/sys/devices/virtual/block/dm-0/slaves/nvme0n1p2",
        "../../../../pci0000:00/0000:00:04.0/nvme/nvme0/nvme0n1/nvme0n1p2",
    )
    link(root, "/sys/devices/virtual/block/dm-1/slaves/dm-0", "../../dm-0")
    put(
        root,
        "/proc/self/mountinfo",
        "27 1 253:1 / / rw - ext4 /dev/mapper/vg-root rw\n28 27 0:40 / /var rw - btrfs /dev/mapper/vg-root rw\n",
    )
    return root


def everything(source, reader):
    """All that is made of devices."""
    devices = Devices(source, reader)
    places = targets(reader, devices, ["/", "/var/crash"], {})
    listed = [devices.get(d) for s in ("block", "net", "virtio", "pci", "nvme") for d in source.list(s)]
    return [devices.buses(["virtio", "vmbus", "pci"]), devices.network(), places, listed]


def test_udevadm_and_sysfs_agree(tmp_path):
    reader = Reader(str(sysfs(tmp_path)))
    tree = everything(TreeSource(reader), reader)
    assert everything(UdevadmSource(EXPORT), reader) == tree
    buses, network, places, listed = tree
    assert buses == {"virtio": 1, "pci": 1}
    assert network == [{"name": "br0", "driver": "bridge"}, {"name": "ens5", "driver": "virtio_net"}]
    names = [(d["name"], d["dm_kind"], d["driver"]) for d in places[0]["chain"]]
    assert names == [
        ("dm-1", "LVM", ""),
        ("dm-0", "CRYPT", ""),
        ("nvme0n1p2", "", ""),
        ("nvme0n1", "", ""),
        ("0000:00:04.0", "", "nvme"),
    ]
    assert places[0]["fs_label"] == "top=1"
    assert (places[1]["fs_type"], places[1]["chain"]) == (
        "btrfs",
        places[0]["chain"],
    )  # no number of its own: found by name
    assert all(d is not None for d in listed)


def test_a_forced_source_that_is_not_there_is_said(tmp_path):
    reader = Reader(str(tmp_path))
    assert choose_source(reader, "pyudev", {}).name == "tree"
    assert [u["what"] for u in reader.unseen] == ["devices through pyudev"]


def test_mounts():
    table = mounts(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /var rw - xfs /dev/sdb ro\n3 1 8:3 / /var rw - xfs /dev/sdc rw\n4 1 8:4 / /a\\040b rw - ext4 /dev/sdd rw\n"
    )
    assert mount_of("/var/crash", table)["number"] == "8:3"
    assert mount_of("/varx", table)["number"] == "8:1"
    assert mount_of("/a b/c", table)["number"] == "8:4"
    assert table[1]["read_only"]


def live(**more):
    return kdo_probe.collect("/", "h1", interest(), ["/", "/var/crash"], {"groups": ["g"], "tags": []}, **more)


def test_this_machine():
    doc = live()
    check(doc)
    assert doc["probe"]["root"] == "/"
    assert doc["signals"]["machine"] == os.uname().machine
    assert doc["kernel"]["release"] == os.uname().release
    assert doc["memory"]["page_size"] == os.sysconf("SC_PAGE_SIZE")
    assert doc["targets"][0]["exists"]
    assert len(json.dumps(doc)) < 100000


def test_sources_give_the_same_bytes(monkeypatch):
    """Through pyudev, through sysfs, and through what udevadm would say (made from pyudev) if it is not installed."""
    try:
        source = PyudevSource()
    except (ImportError, OSError):
        pytest.skip("no libudev here")
    blocks = []
    for device in source.context.list_devices():
        lines = ["P: " + device.device_path] + [f"E: {k}={device.properties[k]}" for k in device.properties]
        blocks.append("\n".join(lines))
    real = kdo_probe_udev.run
    answer = ("\n\n".join(blocks) + "\n\n", 0)
    monkeypatch.setattr(kdo_probe_udev, "run", lambda a, *r, **k: answer if a[0] == "udevadm" else real(a, *r, **k))
    documents = {}
    for name in ("pyudev", "udevadm", "tree"):
        doc = live(udev=name)
        assert doc["probe"].pop("udev_source") == name
        for target in doc["targets"]:
            target.pop("free")  # others write at the same time
        documents[name] = json.dumps(doc)
    assert documents["pyudev"] == documents["tree"] == documents["udevadm"]


def record(reader, targets=("/", "/var/crash")):
    doc, devices = kdo_probe.probe(reader, "h1", interest(), list(targets))
    seen = [devices.seen[path] for path in sorted(devices.seen)]
    return doc, sanitise(reader.recorded, doc, seen, [os.uname().nodename], interest()["unsafe_keys"])


def same(first, second):
    """Equal in all that tells the platform and its state."""
    for doc in (first, second):
        for key in ("cpuid_source", "kernel_log_source"):
            doc["signals"].pop(key)
        for target in doc["targets"]:
            for key in ("fs_uuid", "fs_label"):
                target.pop(key, None)
    assert second["signals"] == first["signals"]
    for part in ("memory", "targets", "network", "distribution", "packages", "services", "available", "kexec"):
        assert second[part] == first[part], part
    assert second["boot"]["tools"] == first["boot"]["tools"]
    assert second["boot"]["markers"] == first["boot"]["markers"]
    for key in (
        "release",
        "config",
        "config_source",
        "symbols",
        "crash_shutdown",
        "sysctls",
        "modules",
        "lockdown",
        "efi",
    ):
        assert second["kernel"][key] == first["kernel"][key], key
    assert set(second["files"]) == set(first["files"])


def test_a_record_of_this_machine_replays(tmp_path):
    reader = Reader("/", record=True)
    doc, tree = record(reader)
    assert sum(len(json.dumps(e)) for e in tree.values()) < 1 << 20
    assert not [p for p in tree if p.startswith(("/dev/", "/proc/kcore"))]
    write_tree(tmp_path / "t", tree)
    again = kdo_probe.collect(str(tmp_path / "t"), "h1", interest(), ["/", "/var/crash"])
    check(again)
    same(doc, again)
    assert " T " not in tree["/proc/kallsyms"]["text"].replace("0000000000000000 T ", "")


def test_a_record_of_devices_replays(tmp_path):
    root = sysfs(debian(tmp_path / "a"))
    doc, tree = record(Reader(str(root), record=True))
    text = json.dumps(tree)
    for secret in ("11111111-2222", "66666666-2222", "11111111222233334444555555555555", "SERIAL0001"):
        assert secret not in text
    write_tree(tmp_path / "b", tree)
    again = kdo_probe.collect(str(tmp_path / "b"), "h1", interest(), ["/", "/var/crash"])
    for d in (doc, again):  # an asset tag is taken out; log lines of a tree come from a file, those of a record do not
        d["signals"]["dmi"].pop("chassis_asset_tag", None)
    same(doc, again)
    assert again["targets"][0]["chain"]


def test_stand_ins():
    s = Sanitiser(["web-1.corp.example", "vm"])
    out = s.text(
        "a 10.1.2.3 b 10.1.2.3 c 127.0.0.1 d fe80::1:2 e ::1 f 0000:00:04.0 g 12:34:56\n"
        "mac 52:54:00:AB:cd:ef BOOTIF=01-52-54-00-ab-cd-ef root=UUID=12345678-1234-1234-1234-123456789abc UUID=ABCD-1234\n"
        "host web-1 web-1.corp.example /dev/mapper/web--1-root vm kvm 12345678123412341234123456789abc x.corp.example\n"
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ me@here /dev/disk/by-id/ata-SER_1 serial: ABC123 console=ttyS0\n"
    ).splitlines()
    assert out[0] == "a 192.0.2.2 b 192.0.2.2 c 127.0.0.1 d 2001:db8::1 e ::1 f 0000:00:04.0 g 12:34:56"
    assert (
        out[1]
        == "mac 02:00:00:00:00:01 BOOTIF=02-00-00-00-00-01 root=UUID=00000000-0000-4000-8000-000000000001 UUID=0000-0001"
    )
    assert out[2] == "host host host /dev/mapper/host-root vm kvm 00000000000040008000000000000001 x.host"
    assert out[3] == "ssh-rsa <redacted> /dev/disk/by-id/<redacted> serial: <redacted> console=ttyS0"


def test_an_azure_tag_stays(tmp_path):
    tag = "/sys/class/dmi/id/chassis_asset_tag"
    put(tmp_path, tag, "7783-7084-3265-9085-8269-3286-77\n")
    assert record(Reader(str(tmp_path), record=True))[1][tag]["text"].startswith("7783-")
    put(tmp_path, tag, "ACME-0042\n")
    assert record(Reader(str(tmp_path), record=True))[1][tag]["text"] == "\n"


def test_nodename_never_leaves(monkeypatch, tmp_path):
    put(tmp_path, "/proc/cmdline", "root=/dev/mapper/zeus42--vg-root ip=10.77.1.2:::255.255.255.0:zeus42:eth0\n")
    put(
        tmp_path,
        "/boot/loader/entries/0123456789abcdef0123456789abcdef-6.1.conf",
        "title zeus42\nmachine-id 0123456789abcdef0123456789abcdef\n",
    )
    reader = Reader(str(tmp_path), record=True)
    doc, _devices = kdo_probe.probe(reader, "zeus42.corp", interest(), [])
    text = json.dumps(sanitise(reader.recorded, doc, [], ["zeus42"], ""))
    assert "zeus42" not in text
    assert "10.77.1.2" not in text
    assert "0123456789abcdef0123456789abcdef" not in text
    assert any("loader/entries/0000" in line for line in json.loads(text))


def test_binary_programs_are_not_copied(tmp_path):
    put(tmp_path, "/bin/sh", b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\3\0\x3e\0" + b"private" * 100)
    doc, tree = record(Reader(str(tmp_path), record=True))
    assert doc["signals"]["machine"] == "x86_64"
    assert len(base64.b64decode(tree["/bin/sh"]["b64"])) == 20
