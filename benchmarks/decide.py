# SPDX-License-Identifier: Apache-2.0
"""100,000 recorded hosts → plans in one process: µs per host, peak memory, and against the same choice by Ansible tasks.

    python benchmarks/decide.py [--hosts N]

The hosts are made from the recorded ones in tests/hosts and a Debian guest, each with its own name, root UUID, memory,
free space and kernel command line, as JSON lines that are streamed. The peer is what a role would do for one host: five
set_fact/assert tasks that choose by architecture and hypervisor and render the two files, run by ansible-playbook on
localhost-like hosts without any connection, so that it is Ansible's own cost that is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

_WORKER = """
import sys, time, resource
from orchestrator.fleet.collect import HostProblem, stream
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline, bulk
from orchestrator.policy.load import default_path, load
pipeline = Pipeline(load(default_path(), knowledge()), knowledge())
start = time.process_time()
states = {}
with bulk():
    for item in stream(sys.argv[1]):
        state = "problem" if isinstance(item, HostProblem) else pipeline.plan(item).status
        states[state] = states.get(state, 0) + 1
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, states)
"""

_PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - set_fact: {strategy: "{{ 'crash_kexec_post_notifiers' if arch == 'aarch64' and hypervisor == 'hyperv' else 'custom_handler' if arch == 'x86_64' and hypervisor == 'kvm' else 'kdump_reset' }}"}
    - assert: {that: ["not (arch == 's390x' and strategy == 'crash_kexec_post_notifiers')"], quiet: true}
    - set_fact: {crashkernel: "{{ '2G-4G:320M,4G-:512M' if arch == 'aarch64' else '384M-:128M' }}"}
    - set_fact: {append: "reset_devices nr_cpus=1 {{ 'irqpoll' if arch == 'x86_64' else '' }} panic=10"}
    - set_fact: {snippet: "GRUB_CMDLINE_LINUX_DEFAULT=\\"crashkernel={{ crashkernel }}{{ ' crash_kexec_post_notifiers' if strategy == 'crash_kexec_post_notifiers' else '' }}\\""}
"""


#: What differs from host to host, as it stands in a rendered template. Numbers are numbers there too.
_NUMBER, _UUID, _TOTAL, _USED, _FREE, _LOG = "@NUMBER@", "@UUID@", 7 << 48, 7 << 49, 7 << 50, "@LOG@"
_FLAGS = tuple(f"flag{n}" for n in range(20))


def _templates(own_signals: bool) -> list[list[str]]:
    """The recorded hosts and some ordinary ones as JSON lines, cut at everything that differs from host to host."""
    from orchestrator.documents.base import to_builtins
    from tests.builders import debian
    from tests.platforms.hosttree import facts_of, load_host

    documents = [to_builtins(debian()) for _ in range(6)]  # most of a fleet is ordinary
    with tempfile.TemporaryDirectory() as scratch:
        for recorded in sorted((ROOT / "tests/hosts").glob("*.yaml")):
            documents.append(to_builtins(facts_of(load_host(recorded), Path(scratch))))
    marks = re.compile(f'({_NUMBER}|{_UUID}|{_TOTAL}|{_USED}|{_FREE}|{_LOG}|"@FLAGS@")')
    out = []
    for document in documents:
        document["host"] = f"host{_NUMBER}.example"
        kernel, grub = document["kernel"], document["boot"]["grub"]
        kernel["cmdline"] = kernel["cmdline"].replace("UUID=aaaa", f"UUID={_UUID}") + f" host={_NUMBER}"
        grub["lines"] = [line.replace("UUID=aaaa", f"UUID={_UUID}") for line in grub["lines"]]
        document["memory"] |= {"total": _TOTAL, "system_ram": _USED}
        for target in document["targets"]:
            target["free"] = _FREE
        if document["signals"]["kernel_log"]:  # what crashkernel= makes the probe take along
            document["signals"]["kernel_log"].append("Command line: " + kernel["cmdline"] + " crashkernel=256M")
        if own_signals:
            document["signals"]["kernel_log"].append(_LOG)
            document["signals"]["clocksources"].append(f"clock{_NUMBER}")  # every architecture has some
            if document["signals"]["cpu_flags"]:
                document["signals"]["cpu_flags"].append("@FLAGS@")
        out.append(marks.split(json.dumps(document) + "\n"))
    return out


def host_lines(count: int, own_signals: bool = False) -> Iterator[str]:
    """``count`` different hosts as JSON lines. ``own_signals``: each with a line in its kernel log, a clock source and
    a set of CPU flags that no other has, so that nothing concluded about one host can be taken for another."""
    templates = _templates(own_signals)
    for i in range(count):
        memory = (1 + i % 64) << 30
        flags = ", ".join(f'"{flag}"' for n, flag in enumerate(_FLAGS) if i >> n & 1) if own_signals else ""
        values = {
            _NUMBER: f"{i:06d}",
            _UUID: f"{i:08x}-0000-4000-8000-{i:012x}",
            str(_TOTAL): str(memory - (i << 10) % memory),
            str(_USED): str(memory - (1 << 20)),
            str(_FREE): str(10_000_000_000 + i),
            _LOG: f"kvm-guest: stealtime: cpu 0, msr {i:x}",
            '"@FLAGS@"': flags or '"flag"',
        }
        parts = templates[i % len(templates)].copy()
        parts[1::2] = [values[mark] for mark in parts[1::2]]  # re.split: text, mark, text, mark, …
        yield "".join(parts)


def make_hosts(path: Path, count: int) -> int:
    """Write ``count`` different hosts as JSON lines; returns the mean size in bytes."""
    with path.open("w") as file:
        for line in host_lines(count):
            file.write(line)
    return path.stat().st_size // count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--peer-hosts", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        facts = Path(scratch) / "facts.jsonl"
        size = make_hosts(facts, options.hosts)
        run = subprocess.run(
            [sys.executable, "-c", _WORKER, str(facts)], capture_output=True, text=True, check=True, cwd=ROOT
        )
        seconds, memory, states = run.stdout.split(" ", 2)
        ours = float(seconds) / options.hosts
        print(
            f"{options.hosts} hosts, {size} bytes each: {float(seconds):.1f} CPU s, {ours * 1e6:.1f} µs per host, peak {int(memory) / 2**20:.0f} MiB; {states.strip()}"
        )
        playbook = Path(scratch) / "peer.yml"
        playbook.write_text(_PLAYBOOK)
        inventory = Path(scratch) / "peer.json"
        hosts = {
            f"h{i}": {"arch": ["x86_64", "aarch64", "s390x"][i % 3], "hypervisor": ["kvm", "hyperv", "lpar"][i % 3]}
            for i in range(options.peer_hosts)
        }
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(inventory),
            "--forks",
            "20",
            str(playbook),
        ]
        subprocess.run(command, capture_output=True, check=True, env={**os.environ, "ANSIBLE_LOCAL_TEMP": scratch})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        peer = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / options.peer_hosts
        print(
            f"Ansible, 5 tasks without a connection, {options.peer_hosts} hosts: {peer * 1e6:.0f} µs CPU per host ({time.monotonic() - began:.1f} s): {peer / ours:.0f} times ours"
        )


if __name__ == "__main__":
    main()
