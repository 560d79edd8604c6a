# SPDX-License-Identifier: Apache-2.0
"""Trees: what a few files tell, what a hostile tree cannot do, and which secrets never come out."""

import ast
import gzip
import hashlib
import json
import os
import re
import struct
import sys
from pathlib import Path

import msgspec
import pytest

UTILS = Path(__file__).resolve().parents[2] / "playbooks" / "module_utils"
sys.path.insert(0, str(UTILS))

import kdo_probe  # noqa: E402
import kdo_probe_kernel  # noqa: E402
import kdo_probe_platform  # noqa: E402
import kdo_probe_reader  # noqa: E402
from kdo_probe_reader import Reader, clean, run  # noqa: E402
from kdo_probe_redact import Redactor  # noqa: E402
from kdo_record import sanitise  # noqa: E402

from orchestrator.documents.facts import Facts  # noqa: E402
from orchestrator.fleet.collect import interest  # noqa: E402

CANARY = "hunter2-CANARY-9f3a"
SOURCES = [*sorted(UTILS.glob("kdo_probe*.py")), UTILS / "kdo_record.py", UTILS.parent / "library" / "kdo_facts.py"]


def put(root, path, content=""):
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def link(root, path, target):
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def collect(root, **more):
    wanted = dict(interest(), **more.pop("interest", {}))
    doc = kdo_probe.collect(str(root), "h1", wanted, more.pop("targets", ["/var/crash"]), **more)
    check(doc)
    return doc


def check(doc):
    """The document is exactly of the type, has no field of its own, and is small enough."""
    text = json.dumps(doc)
    assert len(text) < 1 << 20
    facts = msgspec.json.decode(text, type=Facts, strict=True)
    known_fields(doc, msgspec.to_builtins(facts))


def known_fields(got, typed, where="facts"):
    if isinstance(got, dict):
        assert set(got) <= set(typed), f"{where}: {set(got) - set(typed)}"
        for key, value in got.items():
            known_fields(value, typed[key], f"{where}.{key}")
    elif isinstance(got, list):
        assert len(got) == len(typed)
        for a, b in zip(got, typed, strict=True):
            known_fields(a, b, where + "[]")
    else:
        assert got == typed, where


def unseen(doc):
    return {u["what"]: u["why"] for u in doc["probe"]["unseen"]}


def debian(root):
    """A small but whole host."""
    put(
        root,
        "/etc/os-release",
        'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian 12"\nID_LIKE="a b"\n',
    )
    put(root, "/proc/sys/kernel/osrelease", "6.1.0-31-amd64\n")
    put(root, "/proc/sys/kernel/arch", "x86_64\n")
    put(root, "/proc/sys/kernel/panic", "10\n")
    put(root, "/proc/cmdline", f"root=/dev/vda1 crashkernel=512M rd.token={CANARY} iommu.passthrough=1\n")
    put(root, "/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor vmx\n")
    put(
        root,
        "/proc/iomem",
        "00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n  20000000-2fffffff : Crash kernel\n",
    )
    put(root, "/proc/meminfo", "MemTotal:        1000 kB\nMemFree: 3 kB\n")
    put(
        root,
        "/proc/self/mountinfo",
        "27 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n28 27 0:44 / /mnt/x ro - nfs 10.9.8.7:/e ro\n",
    )
    put(
        root,
        "/proc/kallsyms",
        "0000000000000000 D machine_ops\n0000000000000000 t kvm_crash_shutdown\n0000000000000000 T other\n",
    )
    put(root, "/boot/config-6.1.0-31-amd64", 'CONFIG_KEXEC=y\n# CONFIG_KEXEC_SIG is not set\nCONFIG_FOO="x"\n')
    put(root, "/sys/kernel/kexec_crash_loaded", "1\n")
    put(root, "/sys/kernel/kexec_crash_size", "268435456\n")
    put(root, "/sys/class/dmi/id/sys_vendor", "QEMU\n")
    put(root, "/sys/class/dmi/id/product_serial", CANARY)
    put(root, "/sys/class/dmi/id/chassis_asset_tag", CANARY + "\n")
    put(
        root,
        "/usr/lib/tmpfiles.d/a.conf",
        "# w /sys/module/kernel/parameters/crash_kexec_post_notifiers\nw /sys/module/kernel/parameters/crash_kexec_post_notifiers - - - - Y\n",
    )
    put(
        root,
        "/etc/default/kdump-tools",
        f'USE_KDUMP=1\nKDUMP_CMDLINE_APPEND="nr_cpus=1 my_secret={CANARY} b"\nNFS_PASSWORD={CANARY}\nFTP="ftp://joe:{CANARY}@host/x"\nEND=1\n',
    )
    put(
        root,
        "/etc/default/grub",
        f"GRUB_DEFAULT=0\npassword_pbkdf2 root grub.pbkdf2.{CANARY}\n# password {CANARY}\nX=1\n",
    )
    put(
        root,
        "/boot/grub/grub.cfg",
        f"insmod ext2\nset default=\"0\"\nmenuentry 'A' {{\n\tlinux /vmlinuz-6.1 root=x api_key={CANARY}\n\tinitrd /i\n}}\npassword root {CANARY}\niface\n",
    )
    put(root, "/boot/grub/grubenv", "# GRUB Environment Block\nsaved_entry=A\n" + "#" * 100)
    put(
        root,
        "/var/log/dmesg",
        f"[    0.000000] Hypervisor detected: KVM\n[    0.1] nothing\n[    0.2] Kernel command line: crashkernel=1 token={CANARY}\n",
    )
    put(
        root,
        "/var/lib/dpkg/status",
        "Package: kdump-tools\nStatus: install ok installed\nVersion: 1:1.8.1\n\nPackage: crash\nStatus: deinstall ok config-files\nVersion: 8\n",
    )
    return root


def test_a_small_host(tmp_path):
    doc = collect(debian(tmp_path))
    assert doc["signals"]["machine"] == "x86_64"
    assert doc["signals"]["cpu_flags"] == ["hypervisor", "vmx"]
    assert doc["signals"]["dmi"]["sys_vendor"] == "QEMU"
    assert doc["signals"]["kernel_log"] == [
        "Hypervisor detected: KVM",
        "Kernel command line: crashkernel=1 token=<redacted>",
    ]
    assert doc["signals"]["kernel_log_source"] == "file"
    assert doc["kernel"]["config"] == {"KEXEC": "y", "KEXEC_SIG": "n"}
    assert doc["kernel"]["symbols"] == ["kvm_crash_shutdown", "machine_ops"]
    assert doc["kernel"]["cmdline"] == "root=/dev/vda1 crashkernel=512M rd.token=<redacted> iommu.passthrough=1"
    assert doc["kernel"]["sysctls"] == {"kernel/panic": "10", "kernel/arch": "x86_64"}
    assert doc["kexec"]["supported"] is True
    assert doc["kexec"]["crash_loaded"] is True
    assert doc["kexec"]["crash_regions"] == [0x10000000]
    assert len(doc["kexec"]["notifier_setters"]) == 1
    assert doc["memory"]["system_ram"] == 0x9F000 + 0x3FF00000
    assert doc["memory"]["total"] == 1024000
    assert doc["targets"][0]["mount_point"] == "/"
    assert doc["distribution"]["codename"] == "bookworm"
    assert doc["packages"] == {"kdump-tools": "1:1.8.1"}
    assert doc["boot"]["grub"]["lines"][:3] == [
        'set default="0"',
        "menuentry 'A' {",
        "linux /vmlinuz-6.1 root=x api_key=<redacted>",
    ]
    assert doc["boot"]["grub"]["env"] == {"saved_entry": "A"}
    assert "iface" not in doc["boot"]["grub"]["lines"]


def test_secrets_stay_and_lines_keep_their_numbers(tmp_path):
    root = debian(tmp_path)
    doc = collect(root)
    assert CANARY not in json.dumps({k: v for k, v in doc.items() if k != "signals"})
    fact = doc["files"]["/etc/default/kdump-tools"]
    assert fact["text"].count("\n") == (root / "etc/default/kdump-tools").read_text().count("\n")
    assert fact["redacted"] == 3
    assert fact["text"].splitlines()[4] == "END=1"
    assert fact["sha256"] == hashlib.sha256((root / "etc/default/kdump-tools").read_bytes()).hexdigest()
    doc["signals"]["dmi"].pop("chassis_asset_tag")  # raw in facts, taken out of records
    assert CANARY not in json.dumps(doc)


def test_secrets_never_reach_a_record(tmp_path):
    reader = Reader(str(debian(tmp_path)), record=True)
    doc, devices = kdo_probe.probe(reader, "h1", interest(), ["/var/crash"])
    tree = sanitise(
        reader.recorded, doc, list(devices.seen.values()), ["web-1.corp.example"], interest()["unsafe_keys"]
    )
    assert CANARY not in json.dumps(tree)
    assert "10.9.8.7" not in json.dumps(tree)
    assert "/etc/default/grub" in tree


def test_an_empty_tree(tmp_path):
    doc = collect(tmp_path)
    for what in (
        "machine",
        "kernel log",
        "/proc/kallsyms",
        "/proc/cpuinfo",
        "kernel configuration",
        "package database",
    ):
        assert unseen(doc)[what] == "not there"
    assert doc["packages"] is None
    assert doc["kernel"]["symbols"] is None
    assert doc["kexec"]["supported"] is None
    assert doc["targets"] == [{"path": "/var/crash", "exists": False, "size": None, "free": None, "source": ""}]


def test_links_stay_inside(tmp_path):
    outside = put(tmp_path, "outside/secret", CANARY)
    root = tmp_path / "root"
    put(root, "/real/file", "inside\n")
    link(root, "/etc/default/grub", str(outside))
    link(root, "/etc/kdump.conf", "../../../../../../" + str(outside))
    link(root, "/etc/sysconfig", "/real")
    put(root, "/real/kdump", "ok\n")
    link(root, "/etc/kernel", "/etc/kernel")
    link(root, "/etc/zipl.conf", "/proc/1/root" + str(outside))
    doc = collect(root)
    assert CANARY not in json.dumps(doc)
    assert doc["files"]["/etc/default/grub"]["error"] == "the link leads nowhere"
    assert doc["files"]["/etc/sysconfig/kdump"]["text"] == "ok\n"
    reader = Reader(str(root))
    assert reader.resolve("/etc/../../../real/./file") == "/real/file"
    assert reader.read_text("/etc/kernel/cmdline") is None


def test_odd_files(tmp_path):
    put(tmp_path, "/etc/default/grub", b"A=1\n\xff\xfe\nB=2\x1b[31m\n")
    put(tmp_path, "/etc/kdump.conf", b"a\0b")
    put(tmp_path, "/etc/default/kdump-tools", b"x" * (65 << 10))
    put(tmp_path, "/boot/vmlinuz-1", b"x" * (2 << 20))
    (tmp_path / "etc/zipl.conf").mkdir()
    (tmp_path / "etc/kernel").mkdir()
    os.mkfifo(tmp_path / "etc/kernel/cmdline")
    put(tmp_path, "/sys/class/dmi/id/sys_vendor", b"a\x1b[2J\xffb\n")
    files = collect(tmp_path)["files"]
    assert files["/etc/default/grub"]["error"] == "not UTF-8"
    assert files["/etc/default/grub"]["text"].count("\n") == 3
    assert (files["/etc/kdump.conf"].get("text", None)) is None
    assert files["/etc/kdump.conf"]["error"] == "not a text"
    assert files["/etc/default/kdump-tools"]["error"] == "too large"
    assert files["/etc/default/kdump-tools"]["sha256"]
    assert "sha256" not in files["/boot/vmlinuz-1"]
    assert files["/boot/vmlinuz-1"].get("error", "") == ""
    assert files["/etc/zipl.conf"]["error"] == "not a file"
    assert files["/etc/kernel/cmdline"]["error"] == "not a file"
    assert "\x1b" not in json.dumps(collect(tmp_path)["signals"]).replace("\\u001b", "\x1b")


def test_the_document_stays_small(tmp_path):
    for number in range(300):
        put(tmp_path, f"/etc/default/grub.d/{number}.cfg", "\x01ä" * 20000)
    put(
        tmp_path,
        "/boot/grub/grub.cfg",
        "menuentry '" + "ä" * 3000 + "'\n" + "linux x\n" * 9000 + ("linux " + "é" * 1900 + "\n") * 900,
    )
    put(tmp_path, "/var/log/dmesg", "crashkernel ä" * 100000)
    put(tmp_path, "/proc/cmdline", "ä" * 60000)
    doc = collect(tmp_path)
    assert any("left out" in f.get("error", "") for f in doc["files"].values())


def test_permission_denied_is_said(monkeypatch, tmp_path):
    root = debian(tmp_path)
    real = os.open

    def refuse(path, *rest, **more):
        if str(path).endswith(("kallsyms", "iomem", "default/grub", "grub.cfg")):
            raise PermissionError(13, "no")
        return real(path, *rest, **more)

    monkeypatch.setattr(kdo_probe_reader.os, "open", refuse)
    doc = collect(root)
    for what in ("/proc/kallsyms", "/proc/iomem", "/boot/grub/grub.cfg", "/etc/default/grub"):
        assert unseen(doc)[what] == "permission denied"
    assert doc["kernel"]["symbols"] is None
    assert doc["files"]["/etc/default/grub"]["error"] == "permission denied"


@pytest.mark.parametrize(
    "said",
    [
        b"[]", b"{", b"\xff", b"[" * 100000, b'{"machine": 3, "cpuid": [1, {"leaf": {}}], "udev": [3, {"devpath": 1}], "buses": {"virtio": true}}',
        b'{"udev": {}, "kernel_log": [1], "services": {"kdump": []}, "targets": {"/var/crash": {"size": 1e99, "free": -1}}, "memory": {"cpus": 1e400}}',
        b'{"packages": {"a": 1}, "package_manager": 3, "available": [], "euid": "x", "detect_virt": [], "tools": 1, "devices": {"a": 1}}',
        b'{"buses": {"virtio": 99999999999999999999999}, "udev": [{"devpath": "/devices/a", "subsystem": 1, "properties": 3, "below": 2}]}',
    ],
)  # fmt: skip
def test_a_hostile_record_does_no_harm(tmp_path, said):
    put(tmp_path, "/.kdo/signals.json", said)
    put(tmp_path, "/proc/self/mountinfo", "27 1 254:1 / / rw - ext4 /dev/vda1 rw\nrubbish\n1 2 3 4\\999 5 6 - x y\n")
    collect(tmp_path)


def test_a_record_says_what_files_cannot(tmp_path):
    said = {
        "machine": "s390x", "cpuid": [{"leaf": "0x40000000", "signature": "KVMKVMKVM"}], "kernel_log": ["Hypervisor detected: KVM", "other"],
        "smbios_vm": True, "buses": {"vmbus": 3}, "devices": ["/dev/mshv", "/etc/passwd"], "detect_virt": {"vm": "kvm", "version": "252"},
        "services": {"kdump": {"load": "loaded", "enabled": "enabled"}}, "packages": {"kdump": "1"}, "package_manager": "rpm", "euid": 0,
        "tools": ["zipl", "rogue"], "memory": {"page_size": 4096, "cpus": 2}, "crash_shutdown": "kvm_crash_shutdown",
        "targets": {"/var/crash": {"size": 10, "free": 5, "exists": True}},
    }  # fmt: skip
    put(tmp_path, "/.kdo/signals.json", json.dumps(said))
    doc = collect(tmp_path)
    s = doc["signals"]
    assert (s["machine"], s["smbios_vm"], s["buses"], s["devices"]) == ("s390x", True, {"vmbus": 3}, ["/dev/mshv"])
    assert (s["cpuid_source"], s["kernel_log"], s["kernel_log_source"]) == (
        "recorded",
        ["Hypervisor detected: KVM"],
        "recorded",
    )
    assert doc["services"]["kdump"]["enabled"] == "enabled"
    assert (doc["packages"], doc["package_manager"], doc["boot"]["tools"]) == ({"kdump": "1"}, "rpm", ["zipl"])
    assert (doc["targets"][0]["size"], doc["targets"][0]["exists"]) == (10, True)
    assert doc["kernel"]["crash_shutdown"] == "kvm_crash_shutdown"


@pytest.mark.parametrize(
    ("head", "machine"),
    [
        (b"\x02\x01", "x86_64"),
        (b"\x02\x02", "s390x"),
        (b"\x02\x01", "ppc64le"),
        (b"\x02\x02", "ppc64"),
        (b"\x02\x01", "aarch64"),
    ],
)
def test_machine_from_a_program(tmp_path, head, machine):
    number = {"x86_64": 62, "s390x": 22, "ppc64le": 21, "ppc64": 21, "aarch64": 183}[machine]
    put(
        tmp_path,
        "/usr/bin/dash",
        b"\x7fELF" + head + b"\1" + b"\0" * 9 + b"\3\0" + struct.pack("<H" if head[1] == 1 else ">H", number),
    )
    link(tmp_path, "/bin", "usr/bin")
    link(tmp_path, "/usr/bin/sh", "dash")
    assert collect(tmp_path)["signals"]["machine"] == machine


def test_firmware_tables(tmp_path):
    facp = b"FACP" + struct.pack("<IB", 276, 6) + b"\0" + b"VRTUAL" + b"MICROSFT" + b"\0" * 244 + b"MsHyperV"
    put(tmp_path, "/sys/firmware/acpi/tables/FACP", facp)
    put(tmp_path, "/sys/firmware/acpi/tables/DSDT", b"short")
    put(tmp_path, "/sys/firmware/dmi/entries/0-0/raw", b"\0" * 19 + b"\x10" + b"\0" * 8)
    put(tmp_path, "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"\6\0\0\0\1")
    put(tmp_path, "/proc/device-tree/compatible", b"ibm,powernv\0x\0")
    put(tmp_path, "/proc/device-tree/hypervisor/compatible", b"linux,kvm\0")
    put(tmp_path, "/proc/device-tree/fw-cfg@9020000/reg", b"\0")
    put(tmp_path, "/proc/config.gz", gzip.compress(b"CONFIG_KEXEC=y\n"))
    doc = collect(tmp_path)
    assert doc["signals"]["acpi"] == [
        {"table": "FACP", "oem_id": "VRTUAL", "oem_table_id": "MICROSFT", "hypervisor_id": "MsHyperV"}
    ]
    assert doc["signals"]["smbios_vm"] is True
    assert doc["kernel"]["secure_boot"] == 1
    assert doc["kernel"]["efi"] is True
    assert doc["signals"]["device_tree"]["hypervisor_compatible"] == ["linux,kvm"]
    assert doc["signals"]["device_tree"]["nodes"] == ["fw-cfg@9020000", "hypervisor"]
    assert (doc["kernel"]["config"], doc["kernel"]["config_source"]) == ({"KEXEC": "y"}, "/proc/config.gz")


def test_nothing_is_written(tmp_path):
    def picture():
        return sorted(
            (str(p), p.lstat().st_mtime_ns, p.lstat().st_size, p.read_bytes() if p.is_file() else b"")
            for p in tmp_path.rglob("*")
        )

    debian(tmp_path)
    before = picture()
    first = collect(tmp_path)
    assert collect(tmp_path) == first
    assert picture() == before


def test_cpuid_signatures():
    leaf = kdo_probe_platform.leaf_of
    assert leaf(0x40000000, struct.pack("<I", 0x40000001) + b"KVMKVMKVM\0\0\0") == {
        "leaf": "0x40000000",
        "signature": "KVMKVMKVM",
        "max_leaf": "0x40000001",
    }
    assert leaf(0x40000100, b"\0" * 16) is None
    assert leaf(0x40000100, b"\1\2\3\4" * 4) is None
    assert leaf(0x40000000, b"\0" * 4 + b"Microsoft Hv")["signature"] == "Microsoft Hv"


def test_pointer_through_a_core_file(tmp_path):
    head = b"\x7fELF\x02\x01" + b"\0" * 26 + struct.pack("<Q", 64) + b"\0" * 14 + struct.pack("<HH", 56, 2) + b"\0" * 6
    base = 0xFFFFFFFF81000000
    segments = struct.pack("<IIQQQQQQ", 4, 0, 0, 0, 0, 9, 9, 0) + struct.pack(
        "<IIQQQQQQ", 1, 7, 4096, base, 0, 4096, 4096, 0
    )
    core = (head + segments).ljust(4096, b"\0") + b"\0" * 32 + struct.pack("<Q", 0xABCD)
    put(tmp_path, "core", core.ljust(8192, b"\0"))
    read = kdo_probe_kernel.read_virtual
    assert struct.unpack("<Q", read(str(tmp_path / "core"), base + 32, 8))[0] == 0xABCD
    for address in (base - 8, base + 4092, 0):
        with pytest.raises(ValueError, match="no segment"):
            read(str(tmp_path / "core"), address, 8)
    put(tmp_path, "text", "no core")
    with pytest.raises(ValueError, match="ELF"):
        read(str(tmp_path / "text"), base, 8)
    put(tmp_path, "proc/kcore", core.ljust(8192, b"\0"))
    put(tmp_path, "proc/kallsyms", f"{base:016x} D machine_ops\n000000000000abcd t hv_machine_crash_shutdown\t[hv]\n")
    reader = Reader(str(tmp_path), live=True)
    names, addresses, handlers = kdo_probe_kernel.kallsyms(reader, ["machine_ops"])
    assert names == ["machine_ops"]
    assert kdo_probe_kernel.crash_shutdown(reader, "x86_64", addresses, handlers, {}) == "hv_machine_crash_shutdown"
    assert kdo_probe_kernel.crash_shutdown(reader, "x86_64", {"machine_ops": 0}, handlers, {}) is None
    assert [u["what"] for u in reader.unseen] == ["machine_ops.crash_shutdown"]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("PASSWORD=abc", "PASSWORD=<redacted>"),
        ("export my_token = 'a b'  # c", "export my_token = <redacted>"),
        ("password hunter", "password <redacted>"),
        ("password=", "password="),
        ('A="x secret=abc y"', 'A="x secret=<redacted> y"'),
        ("A='x secret=abc'", "A='x secret=<redacted>'"),
        ('A="x secret=\\"a b\\" y"', 'A="x secret=<redacted> y"'),
        ('PASSWORD="a\nb"\nNEXT=1', "PASSWORD=<redacted>\n<redacted>\nNEXT=1"),
        ("PASSWORD=a\\\nb\nNEXT=1", "PASSWORD=<redacted>\n<redacted>\nNEXT=1"),
        ("# The password is kept in the vault of the team", "# The password is kept in the vault of the team"),
        ("# passwords are kept in the vault", "# passwords are kept in the vault"),
        ("iommu.passthrough=1 quiet", "iommu.passthrough=1 quiet"),
        ("cmd --auth-token abc --next", "cmd --auth-token <redacted> --next"),
        ("cmd --auth-token=abc --next", "cmd --auth-token=<redacted> --next"),
        ("path ftp://joe:pw@host/x", "path ftp://joe:<redacted>@host/x"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAA\n-----END OPENSSH PRIVATE KEY-----\nX=1",
            "<redacted>\n<redacted>\n<redacted>\nX=1",
        ),
        ("a=1\r\nsecret=b\r\n", "a=1\r\nsecret=<redacted>\r\n"),
    ],
)
def test_redaction(text, want):
    out, touched = Redactor(interest()["unsafe_keys"]).text(text)
    assert out == want
    assert out.count("\n") == text.count("\n")
    assert (touched > 0) == (out != text)


def test_a_broken_pattern_still_redacts():
    assert Redactor("(").words("token=abc") == "token=<redacted>"


def test_commands_are_bounded():
    assert run(["no-such-command-here"]) == (None, None)
    assert run(["sleep", "5"], timeout=0.1) == (None, None)
    assert run(["id", "-u"], nobody=True)[0].strip() in ("65534", str(os.geteuid()))
    assert clean("a\x1b\ud800b\n") == "a??b"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_old_python_and_size(path):
    source = path.read_text()
    ast.parse(source, feature_version=(3, 6))
    assert source.count("\n") < 400
    for word in (
        "capture_output",
        "dataclass",
        "__future__ import annotations",
        "shell=True",
        "os.system",
        "removeprefix",
        "text=True",
    ):
        assert word not in source
    if path.parent == UTILS:
        assert not re.search(r"\bopen\([^)]*['\"][wax+]", source)
