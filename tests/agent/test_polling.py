# SPDX-License-Identifier: Apache-2.0
"""What no event tells, with real files below a root."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agent.interest import interest
from orchestrator.agent.poll import MAX_PATHS, Poller, device_link, mount_of, mounts

MOUNTS = "22 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw\n23 22 254:16 / /var/crash rw - xfs /dev/vdb rw\n"


@pytest.fixture
def host(tmp_path):
    def write(path, text=""):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    write("/sys/kernel/kexec_crash_loaded", "1\n")
    write("/proc/self/mountinfo", MOUNTS)
    write("/boot/vmlinuz-6.1.0-40-amd64", "k")
    write("/etc/default/kdump-tools", "USE_KDUMP=1\n")
    poller = Poller(interest().polls, interest().targets, str(tmp_path))
    assert poller.look(["/var/crash"]) == []
    poller.write = write
    return poller


def told(host, targets=("/var/crash",)):
    return {r.id: r.seen for r in host.look(targets)}


def test_nothing_new_is_nothing_told(host):
    for _ in range(3):
        assert told(host) == {}


def test_a_capture_kernel_that_was_unloaded(host):
    host.write("/sys/kernel/kexec_crash_loaded", "0\n")
    assert told(host) == {"disarmed": "/sys/kernel/kexec_crash_loaded: 1 → 0"}
    assert told(host) == {}


def test_a_new_kernel(host):
    host.write("/boot/vmlinuz-6.1.0-41-amd64", "k")
    found = told(host)
    assert list(found) == ["kernel-installed"] and found["kernel-installed"].startswith("/boot")
    host.write("/lib/modules/6.1.0-41-amd64/modules.dep", "")
    assert list(told(host)) == ["kernel-installed"]
    (host.write("/boot/vmlinuz-6.1.0-41-amd64", "k2")).unlink()
    assert list(told(host)) == ["kernel-installed"]


def test_an_edited_configuration_also_of_the_same_size(host):
    place = host.write("/etc/default/kdump-tools", "USE_KDUMP=0\n")
    os.utime(place, ns=(1, 1))
    assert told(host) == {"configuration": "/etc/default/kdump-tools changed"}
    place.unlink()
    assert told(host) == {"configuration": "/etc/default/kdump-tools is gone"}
    place.mkdir()
    assert told(host) == {"configuration": "/etc/default/kdump-tools appeared"}


def test_a_dump_target_that_is_not_mounted_any_more(host):
    host.write("/proc/self/mountinfo", MOUNTS.splitlines()[0] + "\n")
    assert told(host) == {"target": "/var/crash: /var/crash 254:16 xfs /dev/vdb rw → / 254:0 ext4 /dev/vda1 rw"}
    host.write("/proc/self/mountinfo", MOUNTS.replace("/ / rw", "/ / ro"))
    assert "254:16 xfs" in told(host)["target"]
    (host.root and os.unlink(f"{host.root}/proc/self/mountinfo"))
    assert "absent" not in told(host)["target"]


def test_a_dump_device_that_is_gone(host):
    link = host.write("/dev/disk/by-uuid/aa-bb")
    targets = ["UUID=aa-bb", "/dev/vdz", "nfs.example.org:/srv", "key:/root/.ssh/id"]
    told(host, targets)
    link.unlink()
    found = told(host, targets)
    assert found["target"].startswith("UUID=aa-bb: ") and found["target"].endswith("→ absent")


def test_a_target_on_a_dead_server_is_not_touched(host, monkeypatch):
    """The path of a target never reaches the file system: only the table of mounts is read."""
    touched = []
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda p, *a, **k: (touched.append(str(p)), real(p, *a, **k))[1])
    host.look(["/net/dumps"])
    assert not [p for p in touched if "/net/dumps" in p] and touched


def test_many_files_are_bounded(host):
    for n in range(MAX_PATHS + 50):
        host.write(f"/etc/default/grub.d/{n}.cfg")
    told(host)
    assert len(host.seen["configuration"]) <= MAX_PATHS


def test_words_of_targets():
    assert device_link("LABEL=dump") == "/dev/disk/by-label/dump" and device_link("/dev/vdb") == "/dev/vdb"
    assert device_link("/var/crash") is None and device_link("host:/x") is None


def test_mounts_of_strange_names():
    table = mounts(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /var/my\\040crash rw - ext4 /dev/sd\\040b rw\nbad\n\n"
    )
    assert mount_of("/var/my crash/x", table) == "/var/my crash 8:2 ext4 /dev/sd b rw"
    assert mount_of("/var/my", table).startswith("/ 8:1") and mount_of("/x", {}) == ""
    assert mount_of("//x", {}) == mount_of("//", {}) == "" and mount_of("//var/my crash", table).startswith(
        "/var/my crash"
    )


@given(st.text(max_size=300), st.text(max_size=50))
def test_any_table_and_any_path(table, path):
    assert isinstance(mount_of("/" + path, mounts(table)), str)
    assert isinstance(mount_of(path, mounts(table)), str)
