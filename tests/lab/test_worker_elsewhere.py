# SPDX-License-Identifier: Apache-2.0
"""A worker on another machine: a guest with kdo on it, a store it reaches over TLS with a password, hosts that only it can reach,
and the loss of that whole machine in the middle of a wave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.store import runs
from orchestrator.store.store import Store
from tests.lab.onguest import install_kdo, same_python
from tests.postgres import Server, server
from tests.sshd import Sshd

pytestmark = [pytest.mark.lab, pytest.mark.lab_full]

DATABASE, SSH = 5432, 2222  # ports of the guest behind which the controller's are


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("postgres"), password="not-a-secret-of-a-test") as found:
        yield found


@contextmanager
def tunnel(guest: Guest, ports: dict[int, int]) -> Iterator[None]:
    """What a network between the machines would do: ports of the guest lead to ports of the controller."""
    *ssh, where = guest._ssh_argv()
    forward = [x for there, here in ports.items() for x in ("-R", f"127.0.0.1:{there}:127.0.0.1:{here}")]
    process = subprocess.Popen([*ssh, "-N", "-o", "ExitOnForwardFailure=yes", *forward, where])
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def ended(process: subprocess.Popen[str], seconds: float = 900) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def worker_on(guest: Guest, url: str) -> None:
    """Started there, and left to itself."""
    guest.ssh(f"nohup kdo worker --queue lab -i /root/site.ini --store '{url}' > /root/worker.log 2>&1 < /dev/null &")


def test_a_worker_elsewhere_does_its_site_and_nothing_is_lost_with_its_machine(artifacts: Path, tls: Server) -> None:
    name = tls.database(f"fleet{os.getpid()}").rsplit("/", 1)[1]
    (artifacts / "pgpass").write_text(f"127.0.0.1:*:*:postgres:{tls.password}\n")
    (artifacts / "pgpass").chmod(0o600)
    os.environ["PGPASSFILE"] = str(artifacts / "pgpass")
    check = "sslmode=verify-full&sslrootcert="
    here = f"postgresql://postgres@127.0.0.1:{tls.port}/{name}?{check}{tls.certificate}"
    there = f"postgresql://postgres@127.0.0.1:{DATABASE}/{name}?{check}/root/server.crt"
    spec = ImageSpec(suite="bookworm")
    with (
        Sshd(artifacts / "sshd") as sshd,
        Guest(build_image(spec), artifacts / "guest", name="elsewhere", machine=Machine.of(spec)) as guest,
    ):
        guest.wait_ssh(900)
        if not same_python(guest):
            pytest.skip("compiled packages of this Python do not run on the guest")
        install_kdo(guest, "fleet")
        known = sshd.known_hosts(artifacts / "known")
        words = known.read_text().split(" ", 1)[1]
        (artifacts / "known_there").write_text(f"[127.0.0.1]:{SSH} {words}")
        for file, place in ((tls.certificate, "server.crt"), (artifacts / "pgpass", ".pgpass"), (sshd.key, "key"),
                            (artifacts / "known_there", "known_hosts")):  # fmt: skip
            guest.copy_to(Path(file), f"/root/{place}")
        guest.ssh("chmod 600 /root/.pgpass /root/key")

        def line(host: str, port: int, key: object, known: object, python: str) -> str:
            return (
                f"{host} ansible_host=127.0.0.1 ansible_port={port} ansible_user={sshd.user} ansible_ssh_private_key_file={key} "
                f"ansible_python_interpreter={python} ansible_ssh_common_args='-o UserKnownHostsFile={known}'\n"
            )

        far = [f"h{n}" for n in range(6)]
        # The controller knows names and sites; where its hosts are only workers know.
        names = "".join(f"{h} ansible_host=192.0.2.1 kdo_site=lab\n" for h in ["elsewhere", *far])
        (artifacts / "names.ini").write_text(names)
        site = "elsewhere ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
        site += "".join(line(h, SSH, "/root/key", "/root/known_hosts", sys.executable) for h in far)
        guest.ssh("cat > /root/site.ini", stdin=site)
        (artifacts / "site.ini").write_text("".join(line(h, sshd.port, sshd.key, known, sys.executable) for h in far))
        queue = ("--store", here, "--engine", "queue", "--shard-size", "1", "--format", "json")
        with tunnel(guest, {DATABASE: tls.port, SSH: sshd.port}):
            # A change: the host that the worker runs on is reached by nobody else.
            changing = start("apply", "-i", "names.ini", "-l", "elsewhere", "-y", *queue, cwd=artifacts)
            worker_on(guest, there)
            code, out, err = ended(changing)
            assert code == 2, (code, out[-2000:], err[-2000:], guest.read("cat /root/worker.log"))
            answer = json.loads(out)
            assert answer["pending_reboot"] == ["elsewhere"] and answer["hosts"][0]["state"] == "committed", answer
            assert "crashkernel=" in guest.read("cat /etc/default/grub.d/zz-kdump-orchestrator.cfg")
            assert tls.password not in guest.read("ps ax -o args; cat /root/worker.log")

            # A look at six hosts; the machine of the worker is lost in the middle of it.
            looking = start("sweep", "-i", "names.ini", "-l", "h*", "--lane", "ansible", *queue, cwd=artifacts)
            with Store(here) as store:
                until = time.monotonic() + 600
                while time.monotonic() < until:
                    found = runs.listed(store.database, 1, "sweep")
                    tally = runs.tally(store.database, found[0].id) if found and found[0].hosts == len(far) else {}
                    if sum(tally.values()) > tally.get("waiting", 0) + tally.get("running", 0) and tally.get("running"):
                        break
                    assert looking.poll() is None, ended(looking)
                    time.sleep(0.2)
                else:
                    pytest.fail(f"the worker took no shard: {guest.read('cat /root/worker.log')}")
                done = [h.host for h in runs.hosts_of(store.database, found[0].id) if h.state not in runs.OPEN]
                guest.stop()
                lost = time.monotonic()
                second = start("worker", "--queue", "lab", "-i", "site.ini", "--store", here, cwd=artifacts)
                try:
                    code, out, err = ended(looking)
                finally:
                    second.terminate()
                    second.wait(60)
                print(f"done before the loss: {done}; the rest {time.monotonic() - lost:.0f} s after it")
                assert code in (0, 2), (code, out[-2000:], err[-2000:])
                rows = {h.host: h for h in runs.hosts_of(store.database, found[0].id)}
                assert set(rows) == set(far) and not {h.state for h in rows.values()} & {*runs.OPEN, *runs.BAD}, rows
                assert 0 < len(done) < len(far) and any(r.attempts == 2 for r in rows.values()), rows
                assert all(rows[h].attempts == 1 for h in done), "what was done is not done again"
