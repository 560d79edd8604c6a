# SPDX-License-Identifier: Apache-2.0
"""`kdo target`, and `kdo validate --probe-target`, where no host is needed to see what they say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from orchestrator.documents.base import encode
from orchestrator.documents.facts import Ssh, SshKey
from tests.builders import debian

KEY = "/root/.ssh/kdump_id_rsa"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMwc0Y5gJvGkRjnV1wCdq2V9o7N4R6kq2ZP7jTqYb0XW"


@pytest.fixture
def facts(tmp_path: Path) -> str:
    keys = [SshKey(path=KEY, mode="0600", public=PUBLIC), SshKey(path="/root/.ssh/old", mode="0600")]
    hosts = [debian("web1"), debian("web2")]
    hosts[0] = msgspec.structs.replace(hosts[0], ssh=Ssh(keys=keys))
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b"".join(encode(host) + b"\n" for host in hosts))
    return str(path)


def test_keys_of_recorded_hosts(kdo, facts) -> None:
    done = kdo("target", "keys", "--facts", facts, "web1")
    assert (done.returncode, done.stdout) == (
        0,
        f"web1 {KEY}: {PUBLIC}\nweb1 /root/.ssh/old: no public half beside it\n",
    )
    done = kdo("target", "keys", "--facts", facts, "--key", KEY, "--format", "json")
    assert done.returncode == 2  # web2 has none
    rows = json.loads(done.stdout)["hosts"]
    assert [(row["host"], [key["path"] for key in row["keys"]]) for row in rows] == [("web1", [KEY]), ("web2", [])]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("target", "push", "localhost", "--to", "-oProxyCommand=x"), "no account"),
        (("target", "push", "localhost", "--to", "vault"), "no account"),
        (("target", "push", "a", "b", "-i", "a,b,", "-l", "a", "--to", "dumps@vault"), "exclude each other"),
        (("validate", "--probe-target", "--facts", "FACTS"), "--probe-target asks hosts"),
    ],
)
def test_what_is_refused_before_anything_is_asked(kdo, facts, words, says) -> None:
    done = kdo(*(facts if word == "FACTS" else word for word in words))
    assert done.returncode == 5 and says in done.stderr, done.stderr


@pytest.mark.skipif(os.geteuid() == 0 and Path(KEY).exists(), reason="this machine has a kdump key of its own")
def test_a_host_without_a_key_is_named_and_nobody_is_logged_in_to(kdo) -> None:
    done = kdo("target", "push", "localhost", "--to", "dumps@nowhere.invalid", "-y")
    assert done.returncode == 2 and "kdo apply makes it" in done.stdout
