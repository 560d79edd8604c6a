# SPDX-License-Identifier: Apache-2.0
"""The step for a login at a dump server, with the real ssh-keygen: what it makes, keeps, refuses and puts back."""

import json
import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "..", "playbooks", "module_utils")]
import kdo_txn  # noqa: E402
from test_probe_targets import GOOD, OTHER  # noqa: E402
from test_txn_fake import DEFAULTS, STATE, Host, Tools, change, sha  # noqa: E402
from test_txn_kill import every_point, hidden, states  # noqa: E402

KEY = "/root/.ssh/kdump_id_rsa"
KNOWN = "/root/.ssh/known_hosts"
KEYGEN = shutil.which("ssh-keygen")
pytestmark = pytest.mark.skipif(not KEYGEN, reason="there is no ssh-keygen")


class RealKeys(Tools):
    """ssh-keygen is the real one."""

    def ssh_keygen(self, argv):
        self.on()
        done = subprocess.run(
            [KEYGEN, *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path / "source")
    host.put("/usr/bin/ssh-keygen", "#!/bin/false\n", 0o755)
    host.put("/root/.profile", "")
    return host


def step(**more):
    return {"op": "action", "name": "ssh-target", "server": "vault", "key": KEY, "host_key": GOOD, **more}


def login(host, **more):
    return change(host, steps=[step(**more)], expect=[])


def run(host, document, tools=None, **more):
    return kdo_txn.run(document, root=host.root, runner=tools or RealKeys(host), **more)


def mode(host, path):
    return oct(os.lstat(host.real(path)).st_mode & 0o7777)


def journal(host):
    found = ""
    for folder, _, names in os.walk(host.real(STATE)):
        for name in names:
            with open(os.path.join(folder, name), "rb") as stream:
                found += stream.read().decode("utf-8", "replace")
    return found


def test_a_key_is_made_the_host_pinned_and_all_of_it_goes_back(host):
    before = host.picture()
    assert run(host, login(host), check=True)["state"] == "check" and host.picture() == before
    result = run(host, login(host))
    assert result["state"] == "committed", result
    assert (mode(host, KEY), mode(host, "/root/.ssh"), mode(host, KNOWN)) == ("0o600", "0o700", "0o600")
    assert host.get(KNOWN) == f"vault {GOOD}\n"
    public = " ".join(host.get(KEY + ".pub").split()[:2])
    assert public.startswith("ssh-ed25519 ") and public in result["steps"][0]["output"]
    private = host.get(KEY)
    assert "PRIVATE KEY" in private
    body = private.splitlines()[3]
    assert body not in json.dumps(result) + journal(host)
    again = run(host, login(host, key=KEY))
    assert again["state"] in ("committed", "nothing") and host.get(KEY) == private
    assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    if host.here(KEY):
        assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    assert host.picture() == before


def test_a_key_that_is_there_is_kept_and_not_even_copied(host):
    host.put(KEY, "the operator's CANARY-77", 0o600)
    before = host.picture()
    result = run(host, login(host))
    assert result["state"] == "committed" and host.get(KEY) == "the operator's CANARY-77"
    assert "CANARY-77" not in json.dumps(result) + journal(host) and not host.here(KEY + ".pub")
    assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    assert host.picture() == before


@pytest.mark.parametrize("old", ["other AAAA\n", f"elsewhere {OTHER}", f"vault ssh-rsa {OTHER.split()[1]}\n"])
def test_known_hosts_keeps_what_it_has(host, old):
    host.put(KNOWN, old, 0o644)
    before = host.picture()
    assert run(host, login(host, key=""))["state"] == "committed"
    assert host.get(KNOWN) == old + ("" if old.endswith("\n") else "\n") + f"vault {GOOD}\n"
    assert mode(host, KNOWN) == "0o644"
    assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    assert host.picture() == before


@pytest.mark.parametrize("path", [KNOWN, "/etc/ssh/ssh_known_hosts"])
def test_never_a_second_line(host, path):
    host.put(KEY, "x", 0o600)
    host.put(path, f"other,vault {GOOD}\n", 0o600)
    before = host.picture()
    assert run(host, login(host))["steps"][0]["result"] == "unchanged"
    assert host.picture() == before


@pytest.mark.parametrize("path", [KNOWN, "/etc/ssh/ssh_known_hosts"])
def test_another_key_of_the_server_is_a_refusal(host, path):
    host.put(path, f"vault {OTHER}\n", 0o600)
    before = host.picture()
    result = run(host, login(host))
    assert result["state"] == "refused" and "another ssh-ed25519 key" in result["error"]["what"]
    assert result["error"]["why"].count("SHA256:") == 2 and "ssh-keygen -R vault" in result["error"]["fix"]
    assert host.picture() == before


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda h: h.put(KEY, "x", 0o640), "others can read"),
        (lambda h: h.link(KEY, "/etc/shadow"), "not a regular file"),
        (lambda h: h.put(KEY + ".pub", "x"), "public half is there without it"),
        (lambda h: h.drop("/usr/bin/ssh-keygen"), "ssh-keygen"),
    ],
)
def test_what_cannot_be_done_is_known_before(host, prepare, says):
    prepare(host)
    before = host.picture()
    result = run(host, login(host))
    assert result["state"] == "refused" and says in json.dumps(result["error"]), result
    assert host.picture() == before


@pytest.mark.parametrize(
    "bad",
    [
        {"key": "/etc/cron.d/x"}, {"key": "/root/.ssh/authorized_keys"}, {"key": "/root/.ssh/../x"}, {"key": "/root/.ssh/rc"},
        {"key": "/root/.ssh/x.pub"}, {"key": None}, {"server": "-oProxyCommand=x"}, {"server": "a b"}, {"server": ""},
        {"host_key": "ssh-ed25519 AAAA"}, {"host_key": GOOD + " x"}, {"host_key": 'command="x" ' + GOOD}, {"host_key": GOOD + "\n"},
        {"host_key": "ssh-rsa " + GOOD.split()[1]}, {"key": "", "host_key": ""}, {"more": 1},
    ],
)  # fmt: skip
def test_documents_that_are_refused(host, bad):
    before = host.picture()
    result = run(host, login(host, **bad))
    assert result["state"] == "refused" and "not valid" in result["error"]["what"], result
    assert host.picture() == before


@pytest.mark.parametrize("fail", ["at once", "late"])
def test_a_failed_step_leaves_nothing(host, fail):
    before = host.picture()
    result = run(host, login(host), RealKeys(host, {"ssh-keygen": fail}))
    assert result["state"] == "undone" and host.picture() == before


def test_a_later_step_that_fails_takes_the_key_with_it(host):
    before = host.picture()
    steps = [step(), {"op": "action", "name": "grub-regenerate"}]
    result = run(host, change(host, steps=steps, expect=[]), RealKeys(host, {"grub-regenerate": "late"}))
    assert result["state"] == "undone" and host.picture() == before


def test_lines_that_came_since_stay_and_only_ours_goes(host):
    host.put(KNOWN, f"old {OTHER}\n", 0o600)
    assert run(host, login(host))["state"] == "committed"
    host.put(KNOWN, host.get(KNOWN) + f"new {OTHER}\n", 0o600)
    assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    assert host.get(KNOWN) == f"old {OTHER}\nnew {OTHER}\n" and not host.here(KEY)


def test_a_directory_that_the_service_makes_at_the_next_boot_goes_back_too(host):
    """kdump-config makes KDUMP_COREDIR with its records in it, long after the transaction."""
    before = host.picture()
    assign = {"op": "assign", "path": DEFAULTS, "assignments": [["KDUMP_COREDIR", "/srv/dumps"]],
              "before_sha256": sha(host.get(DEFAULTS)), "after_sha256": None}  # fmt: skip
    assert run(host, change(host, steps=[assign], expect=[]))["state"] == "committed"
    host.put("/srv/dumps/kexec_cmd", "kexec\n")
    host.put("/srv/dumps/kdump_lock", "")
    assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    assert host.picture() == before
    assert run(host, change(host, steps=[assign], expect=[], id="cd" * 32))["state"] == "committed"
    host.put("/srv/dumps/202611231200/dump.202611231200", "a dump")
    assert kdo_txn.rollback(host.root, runner=RealKeys(host))["state"] == "rolled-back"
    assert host.here("/srv/dumps/202611231200/dump.202611231200")


def test_killed_at_every_durable_call(host, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    before, seen = host.picture(), set()

    def judge(host, stop):
        assert hidden(host) == []
        if states(host) == ["committed"]:
            assert host.get(KNOWN) == f"vault {GOOD}\n" and mode(host, KEY) == "0o600" and host.here(KEY + ".pub")
            seen.add("after")
        else:
            assert host.picture() == before, stop
            seen.add("before")

    def function(host, point):
        run(host, login(host), RealKeys(host, on=point))

    points = every_point(function, host.root, tmp_path, judge)
    assert seen == {"before", "after"} and points > 30
