# SPDX-License-Identifier: Apache-2.0
"""Targets that are no directory, looked at in trees: devices by their words, keys that are never read, known hosts."""

import base64
import hashlib
import hmac
import json
import os
import sys
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "playbooks" / "module_utils"
sys.path.insert(0, str(UTILS))

import kdo_ssh  # noqa: E402

from tests.hostside.test_probe_trees import CANARY, collect, put  # noqa: E402

GOOD = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(range(32))).decode()
OTHER = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
UUID = "0f3c1c5e-6f0d-4f2e-9a43-9d4d0c5b6a11"
DEVICES = [
    {
        "devpath": "/devices/platform/host2/session1/target2:0:0/2:0:0:1/block/sdb/sdb1",
        "subsystem": "block",
        "devtype": "partition",
        "properties": {"DEVNAME": "/dev/sdb1", "MAJOR": "8", "MINOR": "17", "ID_FS_TYPE": "xfs", "ID_FS_UUID": UUID},
    },
    {
        "devpath": "/devices/virtual/block/dm-3",
        "subsystem": "block",
        "devtype": "disk",
        "properties": {"DEVNAME": "/dev/dm-3", "MAJOR": "254", "MINOR": "3", "ID_FS_TYPE": "ext4", "ID_FS_LABEL": "vault",
                       "DM_NAME": "vg-vault", "DM_UUID": "CRYPT-LUKS2-1"},
    },
]  # fmt: skip


def recorded(tree: Path) -> None:
    put(tree, "/.kdo/signals.json", json.dumps({"udev": DEVICES}))
    mountinfo = "22 1 254:3 / /srv/vault rw - ext4 /dev/mapper/vg-vault rw\n"
    put(tree, "/proc/self/mountinfo", mountinfo)


@pytest.mark.parametrize("word", [f"UUID={UUID}", f"UUID={UUID.upper()}", "/dev/sdb1"])
def test_a_device_by_any_of_its_names(tmp_path: Path, word: str) -> None:
    recorded(tmp_path)
    (found,) = collect(tmp_path, targets=[word])["targets"]
    assert (found["path"], found["exists"], found["source"], found["fs_type"]) == (word, True, "/dev/sdb1", "xfs")
    assert "mount_point" not in found and {d["network"] for d in found["chain"]} == {"iscsi"}


@pytest.mark.parametrize("word", ["LABEL=vault", "/dev/mapper/vg-vault", "/dev/dm-3"])
def test_a_mounted_and_encrypted_device(tmp_path: Path, word: str) -> None:
    recorded(tmp_path)
    (found,) = collect(tmp_path, targets=[word])["targets"]
    assert found["exists"] and found["mount_point"] == "/srv/vault" and found["read_only"] is False
    assert [d["dm_kind"] for d in found["chain"]] == ["CRYPT"]


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    recorded(tmp_path)
    (found,) = collect(tmp_path, targets=["UUID=dead-beef"])["targets"]
    assert (found["exists"], found["source"]) == (False, "") and "chain" not in found


def test_keys_are_listed_and_never_read(tmp_path: Path) -> None:
    private = put(tmp_path, "/root/.ssh/kdump_id_rsa", CANARY)
    os.chmod(private, 0o600)
    put(tmp_path, "/root/.ssh/kdump_id_rsa.pub", f"{GOOD} kdump@web1\n")
    put(tmp_path, "/root/.ssh/broken", CANARY)
    put(tmp_path, "/root/.ssh/broken.pub", f"ssh-ed25519 AAAA {CANARY}\n")
    put(tmp_path, "/etc/kdump/key", CANARY)
    for name in ("authorized_keys", "known_hosts", "config", "known_hosts.old"):
        put(tmp_path, f"/root/.ssh/{name}", CANARY)
    document = collect(tmp_path, targets=["dumps@vault", "key:/etc/kdump/key", "key:/root/.ssh/none"])
    keys = {key["path"]: (key["mode"], key["public"]) for key in document["ssh"]["keys"]}
    assert set(keys) == {"/root/.ssh/kdump_id_rsa", "/root/.ssh/broken", "/etc/kdump/key"}
    assert keys["/root/.ssh/kdump_id_rsa"] == ("0600", GOOD) and keys["/root/.ssh/broken"][1] == ""
    assert document["targets"] == [] and CANARY not in json.dumps(document)
    assert hashlib.sha256(CANARY.encode()).hexdigest() not in json.dumps(document)


def test_nothing_of_ssh_is_looked_at_where_no_target_needs_it(tmp_path: Path) -> None:
    put(tmp_path, "/root/.ssh/id_ed25519", CANARY)
    assert collect(tmp_path)["ssh"] == {}


def hashed(host: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, host.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("vault {}", True),
        ("other,VAULT,10.0.0.1 {} comment of somebody", True),
        (hashed("vault") + " {}", True),
        ("v?ult {}", True),
        ("*,!vault {}", False),
        (hashed("other") + " {}", False),
        ("[vault]:2222 {}", False),
        ("@revoked vault {}", False),
        ("@cert-authority vault {}", False),
        ("# vault {}", False),
        ("vault", False),
        ("|1|x|y {}", False),
        ("vault ssh-ed25519 AAAAnonsense", False),
    ],
)
def test_known_hosts_as_ssh_reads_them(line: str, known: bool) -> None:
    text = "\n" + line.replace("{}", GOOD) + "\n"
    assert kdo_ssh.host_keys(text, "vault") == ([GOOD] if known else [])


def test_the_host_keys_of_the_servers_that_were_asked_about_and_of_no_others(tmp_path: Path) -> None:
    put(tmp_path, "/root/.ssh/known_hosts", f"vault {GOOD}\nsecret-host {OTHER}\n")
    put(tmp_path, "/etc/ssh/ssh_known_hosts", f"vault {OTHER}\n")
    document = collect(tmp_path, targets=["dumps@vault", "dumps@elsewhere"])
    assert document["ssh"]["known"] == {"vault": sorted([GOOD, OTHER]), "elsewhere": []}
    assert "secret-host" not in json.dumps(document)


@pytest.mark.parametrize(
    "text", ["ssh-dss " + GOOD.split()[1], "ssh-rsa " + GOOD.split()[1], "ssh-ed25519 AAAA", "", "x"]
)
def test_what_is_no_public_key(text: str) -> None:
    assert kdo_ssh.public_key(text) == ""
