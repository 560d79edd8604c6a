# SPDX-License-Identifier: Apache-2.0
"""Dumps that leave the machine: the whole life cycle with an SSH and with an NFS server that really receives them."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from orchestrator.fleet.login import PushError, push
from orchestrator.lab.aptrepo import build_repository
from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.layout import private_key, public_key
from orchestrator.lab.process import default_cache
from orchestrator.lab.rootfs import GUEST_REPOSITORY
from orchestrator.lab.target import GANESHA, SSH_ADDRESS, SSHD, NfsTarget, SshTarget
from orchestrator.lab.vmcore import PANIC, DumpVerdict, judge_received, judge_vmcore, wait_capture
from tests.lab.lifecycle import Kdo, Resets, crash, life_cycle

pytestmark = pytest.mark.lab

needs_sshd = pytest.mark.skipif(not Path(SSHD).exists(), reason="openssh-server is not installed here")
needs_ganesha = pytest.mark.skipif(
    not Path(GANESHA).exists(), reason="nfs-ganesha and nfs-ganesha-vfs are not installed here"
)
KEY = "/root/.ssh/kdump_id_rsa"
KEYS = [
    ("web1", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"),
    ("web 2", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
]
POLICY = """\
apiVersion: kdump-orchestrator/v1
kind: Policy
metadata: {{name: dump-server}}
spec:
  extends: [default]
  settings:
    target: {target}
"""


def policy(artifacts: Path, **target: str) -> Path:
    path = artifacts / "target.yaml"
    path.write_text(POLICY.format(target=json.dumps(target)))
    return path


def with_network(guest: Guest) -> None:
    """What `systemctl enable systemd-networkd` leaves on an installed system, and the image lacks.

    The capture kernel starts one unit and what that wants: network-online.target, and by that nothing else.
    """
    guest.ssh("systemctl unmask systemd-networkd-wait-online && systemctl enable systemd-networkd")


def received(dumps: Path, workdir: Path) -> DumpVerdict:
    verdict = judge_received(dumps, workdir)
    assert verdict.complete, verdict.problems
    assert verdict.panic == PANIC and verdict.size > 1 << 20
    print(json.dumps({"dump": verdict.path, "bytes": verdict.size}))
    return verdict


def nothing_at_home(guest: Guest) -> None:
    assert guest.read("find /var/crash -name 'dump*' -o -name 'vmcore*'") == ""


def kdo(guest: Guest, *words: str, code: int = 0) -> dict[str, Any]:
    """Run a command of a group (`kdo target keys`) against the guest; what it says as JSON."""
    command = [sys.executable, "-m", "orchestrator", *words[:2], "-i", str(guest.ansible_inventory()), *words[2:]]
    done = subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, timeout=300, cwd=guest.home, check=False
    )
    assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.mark.lab_full
@needs_sshd
def test_a_dump_over_ssh(artifacts: Path) -> None:
    """The host makes its key and pins the server's in the transaction; the operator brings the key to the server."""
    server, spec = SshTarget(artifacts / "server"), ImageSpec()
    operator = private_key(default_cache())
    server.authorize(public_key(operator))
    config = server.client_config(operator)
    chosen = policy(artifacts, ssh=server.place, path=server.path, host_key=server.host_key)

    def login(guest: Guest, code: int) -> dict[str, str]:
        document = Kdo(guest, artifacts).json("validate", "-p", str(chosen), "--probe-target", code=code)
        return {check["id"]: check["verdict"] for check in document["hosts"][0]["checks"]}

    def bring_the_key(guest: Guest) -> None:
        mode, text = guest.read(f"stat -c %a {KEY} && cat /root/.ssh/known_hosts").splitlines()
        assert (mode, text) == ("600", f"{SSH_ADDRESS} {server.host_key}")
        assert login(guest, 2)["target-login"] == "fail"
        (host,) = kdo(guest, "target", "keys", guest.name)["hosts"]
        (key,) = [key for key in host["keys"] if key["path"] == KEY]
        assert key["public"] == " ".join(guest.read(f"cat {KEY}.pub").split()[:2])
        for added in (True, False):
            command = ("target", "push", guest.name, "--to", server.place, "--ssh-config", str(config), "-y")
            (pushed,) = kdo(guest, *command)["hosts"]
            assert pushed == {"host": guest.name, "key": key["public"], "added": added}
        assert server.authorized_keys.read_text().count(key["public"]) == 1
        checks = login(guest, 0)
        names = ("target", "target-network", "target-key", "target-host-key", "target-login")
        assert [checks[name] for name in names] == ["pass"] * 5, checks

    def judge(guest: Guest, workdir: Path) -> DumpVerdict:
        nothing_at_home(guest)
        return received(server.dumps, workdir)

    machine = Machine(memory_mb=spec.memory_mb, cpus=2, forwards=(server.forward(),))
    record = life_cycle(spec, artifacts, target="ssh", policy=chosen, machine=machine,
                        prepare=with_network, while_set=bring_the_key, judge=judge)  # fmt: skip
    print(json.dumps(asdict(record)))


@needs_sshd
def test_keys_are_pushed_once_and_only_to_the_server_that_is_known(artifacts: Path) -> None:
    """Without a guest: the operator's ssh against the real server."""
    server = SshTarget(artifacts / "server")
    operator = private_key(default_cache())
    server.authorized_keys.write_text("# " + KEYS[0][1] + "\n" + public_key(operator).strip())  # no newline at its end
    config = server.client_config(operator)
    assert push(KEYS, server.place, config) == {"web1": True, "web 2": True}
    assert push(KEYS[:1], server.place, config) == {"web1": False}
    lines = server.authorized_keys.read_text().splitlines()
    assert lines[2:] == [f"restrict {KEYS[0][1]} kdump@web1", f"restrict {KEYS[1][1]} kdump@web-2"]
    assert lines[1] == public_key(operator).strip() and server.authorized_keys.stat().st_mode & 0o777 == 0o600

    with pytest.raises(PushError, match="no public key"):
        push([("web1", "ssh-ed25519 AAAA\nssh-rsa BBBB")], server.place, config)
    (server.home / "known_hosts").write_text(f"{SSH_ADDRESS} {KEYS[0][1]}\n")
    with pytest.raises(PushError, match="did not take the keys") as refused:
        push(KEYS, server.place, config)
    assert "Host key verification failed" in refused.value.problems[0].why
    assert server.authorized_keys.read_text().splitlines() == lines


@pytest.mark.lab_full
@needs_sshd
def test_a_dump_that_cannot_arrive_is_known_before_the_crash(artifacts: Path) -> None:
    """Nothing starts the network for network-online.target: validate says so, and the crash proves it right."""
    server, spec = SshTarget(artifacts / "server"), ImageSpec()
    chosen = policy(artifacts, ssh=server.place, host_key=server.host_key)
    machine = Machine(memory_mb=spec.memory_mb, cpus=2, forwards=(server.forward(),))
    with Guest(build_image(spec), artifacts / "guest", name="offline", machine=machine) as guest:
        guest.wait_ssh(600)
        guest.ssh("systemctl mask systemd-networkd-wait-online")
        runs = Kdo(guest, artifacts)
        with Resets(guest):
            command = ("apply", "-p", str(chosen), "-y", "--reboot", "--no-trial")
            done = runs.json(*command, code=2, timeout=1800)
        failed = {c["id"]: c["evidence"] for c in done["validation"][0]["checks"] if c["verdict"] == "fail"}
        assert list(failed) == ["target-network"], failed
        assert "nothing starts the network" in failed["target-network"]
        server.authorize(guest.read(f"cat {KEY}.pub"))
        mark = guest.crash()
        capture = wait_capture(guest, mark, 900)
        said = guest.console.texts(mark)
        assert not capture.saved and [t for t in said if "Unable to reach remote server" in t], guest.console.tail()
        assert not list(server.dumps.iterdir())

        guest.start()
        guest.wait_ssh(600)
        with_network(guest)
        runs("validate", "-p", str(chosen))


def with_nfs_client(guest: Guest) -> None:
    with_network(guest)
    guest.ssh(["tee", "/etc/apt/sources.list"], stdin=f"deb [trusted=yes] {GUEST_REPOSITORY} ./\n")
    guest.ssh("apt-get -q update && apt-get -q -y --no-install-recommends install nfs-common", 900)
    guest.ssh(": > /etc/apt/sources.list")


def nfs_machine(spec: ImageSpec, server: NfsTarget) -> Machine:
    repository = build_repository(build_image(spec), spec.suite, packages=("nfs-common",))
    return Machine(memory_mb=spec.memory_mb, cpus=2, apt_repository=repository, forwards=(server.forward(),))


@pytest.mark.lab_full
@needs_ganesha
def test_a_dump_over_nfs(artifacts: Path) -> None:
    spec = ImageSpec()

    def judge(guest: Guest, workdir: Path) -> DumpVerdict:
        nothing_at_home(guest)
        return received(server.dumps, workdir)

    with NfsTarget(artifacts / "server") as server:
        record = life_cycle(spec, artifacts, target="nfs", policy=policy(artifacts, nfs=server.place),
                            machine=nfs_machine(spec, server), prepare=with_nfs_client, judge=judge)  # fmt: skip
        print(json.dumps(asdict(record)))


@pytest.mark.lab_full
@needs_ganesha
def test_a_directory_on_a_network_filesystem_is_another_one_after_the_crash(artifacts: Path) -> None:
    """The capture kernel mounts nothing for remote-fs.target: validate says so, and the dump lies in the directory below."""
    spec = ImageSpec()
    with (
        NfsTarget(artifacts / "server") as server,
        Guest(build_image(spec), artifacts / "guest", name="mounted", machine=nfs_machine(spec, server)) as guest,
    ):
        guest.wait_ssh(600)
        with_nfs_client(guest)
        runs = Kdo(guest, artifacts)
        with Resets(guest):
            runs.json("apply", "-y", "--reboot", "--no-trial", timeout=1800)
        guest.ssh(f"echo '{server.place} /var/crash nfs4 defaults,_netdev 0 0' >> /etc/fstab && mount /var/crash")
        (host,) = runs.json("validate", code=2)["hosts"]
        (check,) = [check for check in host["checks"] if check["id"] == "target"]
        assert check["verdict"] == "fail" and "remote-fs.target" in check["evidence"], check
        capture = crash(guest)
        assert capture.saved
        assert not list(server.dumps.rglob("dump*"))
        guest.ssh("umount /var/crash")
        assert judge_vmcore(guest, artifacts / "vmcore").complete
