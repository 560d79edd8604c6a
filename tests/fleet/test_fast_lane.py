# SPDX-License-Identifier: Apache-2.0
"""The fast lane against a real sshd: the same facts as through Ansible, and what happens when a host is not as it should be."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from orchestrator.documents.facts import Facts
from orchestrator.fleet import fast
from orchestrator.fleet.collect import MAX_DOCUMENT, from_hosts
from orchestrator.fleet.inventory import Host, Inventory, resolve
from orchestrator.fleet.runner import Whom
from tests.sshd import SSHD, Sshd, free_port, keygen

pytestmark = pytest.mark.skipif(not SSHD, reason="openssh-server is not installed here")
pytest.importorskip("asyncssh")

TARGETS = ["/var/crash"]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        server.known_hosts(server.home / "known_hosts")
        yield server


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in [n for n in os.environ if n.startswith("ANSIBLE_") or n == "SSH_AUTH_SOCK"]:
        monkeypatch.delenv(name)


def variables(server: Sshd, **more: object) -> dict[str, object]:
    return {
        "ansible_host": server.places[0][0],
        "ansible_port": server.port,
        "ansible_user": server.user,
        "ansible_ssh_private_key_file": str(server.key),
        "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={server.home}/known_hosts",
        "ansible_python_interpreter": "/usr/bin/python3",
        **more,
    }


def ask(given: dict[str, object], name: str = "web1", **options):
    """(what came of one host, or the reason why Ansible has to ask)."""
    found: list[object] = []
    inventory = Inventory({name: Host(name, ("web",), given)})
    left = fast.sweep(inventory, TARGETS, on_facts=found.append, **options)
    assert len(found) + len(left) == 1
    return found[0] if found else left[name]


def plain(facts: Facts) -> dict:
    """The document without what differs from one moment to the next."""
    data = msgspec.to_builtins(facts)
    data["memory"].pop("available", None)
    for target in data["targets"]:
        for name in [n for n in target if n.startswith("free") or n == "available"]:
            target.pop(name)
    return data


def test_both_lanes_give_the_same_facts(sshd, tmp_path):
    """With groups and tags, and with a device source that is named."""
    text = "\n".join(f"      {k}: {v!r}" for k, v in variables(sshd, kdo_tags=["blue"]).items()).replace("'", '"')
    path = tmp_path / "hosts.yml"
    path.write_text(
        f"all:\n  children:\n    web:\n      hosts:\n        web1:\n{text.replace('      ', '          ')}\n"
    )
    whom = Whom((str(path),))
    inventory = resolve(whom)
    for udev in ("auto", "tree", "udevadm"):
        found: list[object] = []
        assert fast.sweep(inventory, TARGETS, on_facts=found.append, udev=udev) == {}
        ansible = from_hosts(whom, TARGETS, udev=udev)
        assert not ansible.problems
        assert isinstance(found[0], Facts)
        assert plain(found[0]) == plain(ansible.facts[0])
        assert found[0].inventory.groups == ["web"] and found[0].inventory.tags == ["blue"]


@pytest.mark.skipif(not shutil.which("sudo"), reason="sudo is not installed here")
def test_both_lanes_give_the_same_facts_below_sudo(sshd):
    given = variables(sshd, ansible_become=True)
    found = ask(given)
    inventory = Inventory({"web1": Host("web1", ("web",), given)})
    ansible = from_hosts(Whom(hosts_only=inventory.subset(["web1"])), TARGETS)
    if ansible.problems:
        assert "sudo" in str(found)
    else:
        assert plain(found) == plain(ansible.facts[0])


def test_a_sudo_that_asks_for_a_password_is_left_to_ansible(tmp_path):
    """Its words as sudo 1.9 has them; the real one never asks root, which these tests may be."""
    commands = tmp_path / "commands"
    commands.mkdir()
    python_that(commands, "echo 'sudo: a password is required' >&2; exit 1").rename(commands / "sudo")
    with Sshd(tmp_path / "s", extra=f"SetEnv PATH={commands}:/usr/bin:/bin") as s:
        s.known_hosts(s.home / "known_hosts")
        assert "sudo" in ask(variables(s, ansible_become=True))
        assert "sudo" in ask(variables(s), become=True)
        assert isinstance(ask(variables(s, ansible_become=False), become=True), Facts)


def test_nothing_is_left_behind_and_nothing_is_in_a_command_line(sshd, tmp_path):
    with Sshd(
        tmp_path / "s", extra="ForceCommand cat > %s; echo $SSH_ORIGINAL_COMMAND >> %s" % ((tmp_path / "got",) * 2)
    ) as s:
        s.known_hosts(s.home / "known_hosts")
        assert ask(variables(s), name="a-name-of-its-own") == "the answer is no facts document"
    got = (tmp_path / "got").read_bytes()
    program, _, command = got[:-1].rpartition(b"\n")
    assert command == b"/usr/bin/python3 -B -"
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    (home / "struct.py").write_text("raise SystemExit('the working directory was on the path')")
    done = subprocess.run(["/usr/bin/python3", "-B", "-"], input=program + b"\n", capture_output=True, cwd=home,
                          env={"HOME": str(home), "PATH": "/usr/bin:/bin", "TMPDIR": str(temporary)})  # fmt: skip
    assert b"kdo-" in done.stdout and b"a-name-of-its-own" in done.stdout and not done.stderr
    assert os.listdir(home) == ["struct.py"]
    assert not os.listdir(temporary)


def test_an_unknown_host_key(sshd, tmp_path):
    found = ask(variables(sshd, ansible_ssh_common_args=f"-F none -o UserKnownHostsFile={tmp_path}/none"))
    assert found.status == "unreachable" and "known_hosts" in found.fix


def test_a_changed_host_key(sshd, tmp_path):
    for kind in ("ed25519", "ecdsa"):
        other = keygen(tmp_path / kind, kind)
        known = sshd.known_hosts(tmp_path / f"known-{kind}", other)
        found = ask(variables(sshd, ansible_ssh_common_args=f"-F none -o UserKnownHostsFile={known}"))
        assert found.status == "unreachable" and "known_hosts" in found.fix


def test_known_hosts_with_an_alias_a_pattern_a_hash_and_a_broken_line(sshd, tmp_path):
    key = " ".join(Path(f"{sshd.host_key}.pub").read_text().split()[:2])
    for number, (name, more) in enumerate(
        [("fleet", "-o HostKeyAlias=fleet"), (f"[127.0.0.*]:{sshd.port}", ""), ("127.0.0.1", "")]
    ):
        known = tmp_path / f"known{number}"
        known.write_text(f"this line is broken\n{name} {key}\n")
        if number == 2:
            subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], capture_output=True, check=False)
        found = ask(variables(sshd, ansible_ssh_common_args=f"-F none -o UserKnownHostsFile={known} {more}"))
        assert isinstance(found, Facts), found


def test_a_revoked_host_key(sshd, tmp_path):
    known = sshd.known_hosts(tmp_path / "known")
    text = known.read_text()
    known.write_text(text + "@revoked " + text)
    found = ask(variables(sshd, ansible_ssh_common_args=f"-F none -o UserKnownHostsFile={known}"))
    assert found.status == "unreachable" and "known_hosts" in found.fix


def test_a_host_certificate(sshd, tmp_path):
    authority = keygen(tmp_path / "ca")
    key = keygen(tmp_path / "host")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "h", "-h", "-n", "127.0.0.1", f"{key}.pub"], check=True
    )
    with Sshd(tmp_path / "s", host_key=key, extra=f"HostCertificate {key}-cert.pub") as s:
        known = tmp_path / "known"
        known.write_text(f"@cert-authority * {Path(f'{authority}.pub').read_text()}")
        found = ask(variables(s, ansible_ssh_common_args=f"-F none -o UserKnownHostsFile={known}"))
        assert isinstance(found, Facts), found


def test_a_key_that_does_not_fit(sshd, tmp_path):
    found = ask(variables(sshd, ansible_ssh_private_key_file=str(keygen(tmp_path / "other"))))
    assert found.status == "unreachable" and "Permission denied" in found.why and "user and key" in found.fix


def test_a_key_with_a_passphrase_is_left_to_ssh(sshd, tmp_path):
    locked = keygen(tmp_path / "locked", passphrase="a passphrase")
    assert "passphrase" in ask(variables(sshd, ansible_ssh_private_key_file=str(locked)))


def test_a_user_certificate(sshd, tmp_path):
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "user")
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "u", "-n", sshd.user, f"{key}.pub"], check=True)
    with Sshd(tmp_path / "s", extra=f"TrustedUserCAKeys {authority}.pub") as s:
        s.known_hosts(s.home / "known_hosts")
        assert isinstance(ask(variables(s, ansible_ssh_private_key_file=str(key))), Facts)


def test_a_key_that_others_can_read_is_left_to_ssh(sshd, tmp_path):
    key = shutil.copy(sshd.key, tmp_path / "open")
    os.chmod(key, 0o644)
    assert "more ways to log in" in ask(variables(sshd, ansible_ssh_private_key_file=str(key)))


def test_the_agent(sshd, tmp_path, monkeypatch):
    sock = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL) as agent:
        try:
            while not sock.exists():
                time.sleep(0.02)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            subprocess.run(["ssh-add", "-q", str(sshd.key)], check=True, capture_output=True)
            given = variables(sshd)
            del given["ansible_ssh_private_key_file"]
            assert isinstance(ask(given), Facts)
        finally:
            agent.terminate()


def test_a_dead_port(sshd):
    found = ask(variables(sshd, ansible_port=free_port()))
    assert found.status == "unreachable" and "Connection refused" in found.why


def test_a_name_that_does_not_resolve(sshd):
    found = ask(variables(sshd, ansible_host="no-such-host.invalid"))
    assert found.status == "unreachable" and "resolve" in found.why


def test_the_words_are_those_of_the_other_lane(sshd, tmp_path):
    """Dead, unknown and refused: both lanes say the same of what it is and what to do."""
    cases = {
        "dead": variables(sshd, ansible_port=free_port()),
        "unknown": variables(sshd, ansible_ssh_common_args=f"-F none -o UserKnownHostsFile={tmp_path}/none"),
        "refused": variables(sshd, ansible_ssh_private_key_file=str(keygen(tmp_path / "other"))),
    }
    inventory = Inventory({name: Host(name, (), given) for name, given in cases.items()})
    found: list = []
    assert fast.sweep(inventory, TARGETS, on_facts=found.append) == {}
    ansible = from_hosts(Whom(hosts_only=inventory.subset(cases)), TARGETS).problems
    assert [(p.host, p.status, p.what, p.fix) for p in sorted(found, key=lambda p: p.host)] == [
        (p.host, p.status, p.what, p.fix) for p in ansible
    ]


def python_that(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "python3"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_banner_does_not_matter(sshd, tmp_path):
    other = python_that(tmp_path, 'printf \'Welcome!\\n{"facts": 1}\\nkdo- facts\\n\'; /usr/bin/python3 "$@"; echo bye')
    assert isinstance(ask(variables(sshd, ansible_python_interpreter=str(other))), Facts)


def test_a_huge_answer_is_cut_off(sshd, tmp_path):
    other = python_that(tmp_path, "exec cat /dev/zero")
    found = ask(variables(sshd, ansible_python_interpreter=str(other)))
    assert found.status == "failed" and "too large" in found.what and str(MAX_DOCUMENT) in found.why


def test_an_answer_that_is_no_facts_document(sshd, tmp_path):
    assert "no facts document" in ask(
        variables(sshd, ansible_python_interpreter=str(python_that(tmp_path, "cat > /dev/null")))
    )


def test_no_python(sshd):
    assert "no Python" in ask(variables(sshd, ansible_python_interpreter="/nowhere/python3"))


def test_a_probe_that_fails_says_where(sshd, tmp_path):
    body = 'sed \'s/^def main(sources, common, own):/&\\n    sources[0] = ("kdo_broken", "1 \\/ 0")/\' | /usr/bin/python3 -'
    found = ask(variables(sshd, ansible_python_interpreter=str(python_that(tmp_path, body))))
    assert found.status == "failed" and "the probe failed at kdo_broken.py:1: ZeroDivisionError" in found.why


def test_a_host_that_hangs(sshd, tmp_path):
    start = time.monotonic()
    found = ask(variables(sshd, ansible_python_interpreter=str(python_that(tmp_path, "exec sleep 60"))), timeout=2)
    assert found.status == "failed" and "in time" in found.what
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        found = ask(variables(sshd, ansible_port=silent.getsockname()[1]), timeout=2)
    assert found.status == "unreachable" and "timed out" in found.why
    assert time.monotonic() - start < 10


def test_a_jump_host(sshd, tmp_path):
    """Two hops, as the user's own ssh configuration describes them; the second sshd is seen by the first only in name."""
    with Sshd(tmp_path / "jump", user_key=sshd.key) as jump:
        jump.known_hosts(jump.home / "known_hosts")
        config = tmp_path / "config"
        config.write_text(
            f"Host jump\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {jump.user}\n  IdentityFile {jump.key}\n"
            f"  UserKnownHostsFile {jump.home}/known_hosts\n"
            f"Host web*\n  HostName 127.0.0.1\n  Port {sshd.port}\n  UserKnownHostsFile {sshd.home}/known_hosts\n"
        )
        given = {"ansible_ssh_private_key_file": str(sshd.key), "ansible_ssh_common_args": f"-F {config} -J jump"}
        inventory = Inventory({f"web{n}": Host(f"web{n}", (), given) for n in range(5)})
        found: list = []
        assert fast.sweep(inventory, TARGETS, on_facts=found.append) == {}
        assert all(isinstance(f, Facts) for f in found) and len(found) == 5, found
        assert jump.log.read_text().count("Accepted publickey") == 1
    found = ask(given)
    assert found.status == "unreachable" and "refused" in found.why


def test_the_rest_goes_through_ansible(sshd):
    inventory = Inventory(
        {
            "plain": Host("plain", (), variables(sshd)),
            "other": Host("other", (), variables(sshd, ansible_host="{{ '127.0.0.1' }}")),
            "dead": Host("dead", (), variables(sshd, ansible_port=free_port())),
        }
    )
    why: list[dict[str, str]] = []
    found = fast.from_fleet(Whom(), inventory, TARGETS, lane="auto", on_left=why.append)
    assert [f.host for f in found.facts] == ["other", "plain"] and [p.host for p in found.problems] == ["dead"]
    assert why == [{"other": "a template in ansible_host"}]
    found = fast.from_fleet(Whom(), inventory, TARGETS, lane="fast")
    assert [f.host for f in found.facts] == ["plain"] and [p.host for p in found.problems] == ["dead", "other"]


def test_the_command(sshd, tmp_path, kdo_here):
    """`kdo detect --lane`: results on stdout, and on stderr why a host went another way."""
    hosts = {"plain": variables(sshd), "other": variables(sshd, ansible_ssh_extra_args="-o VerifyHostKeyDNS=yes")}
    inventory = tmp_path / "hosts.json"
    inventory.write_bytes(msgspec.json.encode({"all": {"hosts": hosts}}))
    done = kdo_here("detect", "-i", str(inventory), "--lane", "auto", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [h["host"] for h in msgspec.json.decode(done.stdout)["hosts"]] == ["other", "plain"]
    assert "note: 1 host not asked over the fast lane: ssh option verifyhostkeydns" in done.stderr
    done = kdo_here("detect", "-i", str(inventory), "--lane", "fast", "--format", "json")
    assert done.returncode == 3 and [h["host"] for h in msgspec.json.decode(done.stdout)["hosts"]] == ["plain"]


def test_without_asyncssh_everything_is_left(sshd, monkeypatch):
    monkeypatch.setattr(fast, "find_spec", lambda _name: None)
    assert ask(variables(sshd)) == fast.NOT_INSTALLED


def test_an_error_of_the_caller_ends_the_sweep(sshd):
    def broken(_item: object) -> None:
        raise RuntimeError("the store is full")

    inventory = Inventory({f"h{n}": Host(f"h{n}", (), variables(sshd)) for n in range(3)})
    with pytest.raises(RuntimeError, match="the store is full"):
        fast.sweep(inventory, TARGETS, on_facts=broken)


_INTERRUPTED = """
import json, sys
from orchestrator.fleet.fast import sweep
from orchestrator.fleet.inventory import Host, Inventory
given = json.loads(sys.argv[1])
hosts = Inventory({f"h{n}": Host(f"h{n}", (), given) for n in range(40)})
try:
    sweep(hosts, ["/var/crash"], connections=5, on_facts=print)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once(sshd, tmp_path, number):
    given = msgspec.json.encode(
        variables(sshd, ansible_python_interpreter=str(python_that(tmp_path, "exec sleep 60")))
    ).decode()
    before = sshd.log.read_text().count("Accepted publickey")
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, given], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        deadline = time.monotonic() + 30
        while sshd.log.read_text().count("Accepted publickey") < before + 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        start = time.monotonic()
        run.send_signal(number)
        out, errors = run.communicate(timeout=20)
    assert (out, errors) == (b"interrupted\n", b"") and time.monotonic() - start < 3
