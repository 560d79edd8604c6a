# SPDX-License-Identifier: Apache-2.0
"""What it costs the controller to ask a host, over the fast lane and through Ansible, each beside its floor in the same run.

    python benchmarks/lanes.py [--hosts N] [--only raw,fast,task,ansible] [--json]

The hosts are real sshd endpoints on 127.0.x.y (16 addresses for each sshd, which is as many as it can have) with keys of
their own in a private directory. Each row runs in a process of its own, whose CPU time (user and system) is taken with that
of all its children, whichever way they were left behind; sshd and the probes are not among them. Wall time says little
here: the targets share the machine with the controller.

    raw      AsyncSSH, a command that prints as many bytes as the probe does; keys and known hosts read once
    fast     orchestrator.fleet.fast.sweep
    task     ansible-playbook, one task (ansible.builtin.ping), pipelining, 20 forks
    ansible  the Ansible lane: detect.yml through ansible-runner, 20 forks
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.sshd import MAX_LISTEN, SSHD, Sshd, free_port, keygen  # noqa: E402

FORKS = 20
CONNECTIONS = 20  # the targets share the machine: more at once would only make them wait for each other
ROWS = ("raw", "fast", "task", "ansible")
_FLOOR = {"fast": "raw", "ansible": "task"}
_PR_SET_CHILD_SUBREAPER = 36


def _reap() -> None:
    """Wait for children that others have left to us, such as ssh's own masters: their CPU time counts as well."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def _cpu() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def raw(given: dict[str, Any]) -> int:
    """Bytes that came from each host."""
    import asyncssh

    known = asyncssh.read_known_hosts(given["known_hosts"])
    key = asyncssh.read_private_key(given["key"])
    hosts = iter(given["hosts"])
    done = 0

    async def worker() -> None:
        nonlocal done
        for address, port in hosts:
            async with asyncssh.connect(
                address, port, config=None, username=given["user"], client_keys=[key], known_hosts=known
            ) as connection:
                answer = await connection.run(f"head -c {given['bytes']} /dev/zero", encoding=None, check=True)
                done += len(answer.stdout) == given["bytes"]

    async def everything() -> None:
        await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))

    asyncio.run(everything())
    return done


def fast(given: dict[str, Any]) -> int:
    """Hosts that gave facts over the fast lane."""
    from orchestrator.documents.facts import Facts
    from orchestrator.fleet.fast import sweep
    from orchestrator.fleet.inventory import resolve
    from orchestrator.fleet.runner import Whom

    found: list[bool] = []
    inventory = resolve(Whom((given["inventory"],)))
    start = _cpu()  # how an inventory is read is the same in both lanes, and no part of the other rows
    sweep(inventory, ["/var/crash"], connections=CONNECTIONS, on_facts=lambda f: found.append(isinstance(f, Facts)))
    given["start"] = start
    return sum(found)


def task(given: dict[str, Any]) -> int:
    """Hosts that did one trivial task."""
    book = Path(given["home"]) / "ping.yml"
    book.write_text("- hosts: all\n  gather_facts: false\n  tasks: [{ansible.builtin.ping: }]\n")
    environment = {
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_STDOUT_CALLBACK": "minimal",
    }
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "-i",
        given["inventory"],
        "-f",
        str(FORKS),
        str(book),
    ]
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return run.stdout.count('"ping": "pong"')


def ansible(given: dict[str, Any]) -> int:
    """Hosts that gave facts through Ansible."""
    from orchestrator.fleet.collect import from_hosts
    from orchestrator.fleet.runner import Whom

    return len(from_hosts(Whom((given["inventory"],), forks=FORKS), ["/var/crash"]).facts)


def measured(row: str, config: Path) -> None:
    """Run one row and print what it cost, as JSON. ``cpu``: seconds without the imports of the row's own libraries."""
    given = json.loads(config.read_text())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, wall = _cpu(), time.monotonic()
    done = {"raw": raw, "fast": fast, "task": task, "ansible": ansible}[row](given)
    wall = time.monotonic() - wall
    _reap()
    print(json.dumps({"done": done, "cpu": _cpu() - given.get("start", before), "wall": wall}))


def _servers(stack: ExitStack, home: Path, hosts: int) -> tuple[list[tuple[str, int]], str, Path]:
    """Start the sshds; (address and port of each endpoint, login name, private key)."""
    key, host_key = keygen(home / "user"), keygen(home / "host")
    port, places, user = free_port(), [(f"127.0.{n // 250 + 1}.{n % 250 + 1}", 0) for n in range(hosts)], ""
    places = [(a, port) for a, _ in places]
    for number in range(0, hosts, MAX_LISTEN):
        part = places[number : number + MAX_LISTEN]
        user = stack.enter_context(Sshd(home / f"sshd{number}", part, host_key=host_key, user_key=key)).user
    words = Path(f"{host_key}.pub").read_text().split()
    (home / "known_hosts").write_text("".join(f"[{a}]:{p} {words[0]} {words[1]}\n" for a, p in places))
    return places, user, key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--only", default=",".join(ROWS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        measured(options.row, options.config)
        return
    if not SSHD:
        raise SystemExit("openssh-server is not installed")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="kdo-lanes-") as folder, ExitStack() as stack:
        home = Path(folder)
        given = {**inventory_of(stack, home, options.hosts), "bytes": _answer_size()}
        (home / "config.json").write_text(json.dumps(given))
        for row in [r for r in ROWS if r in options.only.split(",")]:
            said = found[row] = in_its_own_process(__file__, row, home, options.hosts)
            floor = found.get(_FLOOR.get(row, ""))
            if floor:
                said["ratio"] = said["cpu"] / floor["cpu"]
            if not options.json:
                ratio = f"  {said['ratio']:.2f} × {_FLOOR[row]}" if floor else ""
                print(
                    f"{row:8} {said['ms_per_host']:8.2f} ms CPU per host  (wall {said['wall']:.0f} s){ratio}",
                    flush=True,
                )
    if options.json:
        print(json.dumps({"hosts": options.hosts, "answer_bytes": given["bytes"], "rows": found}, indent=2))


def inventory_of(stack: ExitStack, home: Path, count: int) -> dict[str, Any]:
    """Endpoints that last as long as the stack, with an inventory of them: what every row is given."""
    places, user, key = _servers(stack, home, count)
    args = f"-F none -o UserKnownHostsFile={home}/known_hosts -o IdentitiesOnly=yes"
    lines = [f"host{n} ansible_host={a} ansible_port={p}" for n, (a, p) in enumerate(places)]
    lines += ["[all:vars]", f"ansible_user={user}", f"ansible_ssh_private_key_file={key}", f"ansible_ssh_common_args='{args}'",
              "ansible_python_interpreter=/usr/bin/python3"]  # fmt: skip
    (home / "hosts").write_text("\n".join(lines) + "\n")
    return {"hosts": places, "user": user, "key": str(key), "known_hosts": str(home / "known_hosts"), "home": str(home),
            "inventory": str(home / "hosts"), "count": count}  # fmt: skip


def in_its_own_process(script: str, row: str, home: Path, count: int) -> dict[str, Any]:
    """What one row measured; ends the benchmark where not every host answered."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_") and k != "SSH_AUTH_SOCK"}
    env = {**clean, "HOME": str(home), "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home)}
    command = [sys.executable, script, "--row", row, "--config", str(home / "config.json")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=env)
    if run.returncode != 0:
        raise SystemExit(run.stderr)
    said: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    if said["done"] != count:
        raise SystemExit(f"{row}: {said['done']} of {count} hosts answered\n{run.stderr}")
    said["ms_per_host"] = said["cpu"] / count * 1000
    return said


def _answer_size() -> int:
    """Bytes that the probe prints on this machine."""
    from orchestrator.fleet.collect import interest
    from orchestrator.fleet.payload import asked, build

    text = build(*asked(interest(), ["/var/crash"]), "kdo-" + 32 * "0").text("host1")
    done = subprocess.run(["/usr/bin/python3", "-B", "-"], input=text, capture_output=True, check=True)
    return len(done.stdout)


if __name__ == "__main__":
    main()
