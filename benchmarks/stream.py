# SPDX-License-Identifier: Apache-2.0
"""1,000,000 hosts as JSON lines through a pipe, decided in one process: CPU µs per host and peak memory.

    python benchmarks/stream.py [--hosts N]

The hosts are those of benchmarks/decide.py, made by a child process whose time does not count, and never in a file. Two
mixtures: one where host name, memory, command line, free space and root UUID differ from host to host, and one where the
signals (kernel log, CPU flags) differ as well, the worst case for everything that remembers. The floor is what any tool
in Python pays before it knows anything: ``json.loads`` of the same lines, and msgspec's untyped decoder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

_MAKE = """
import sys
from benchmarks.decide import host_lines
try:
    for line in host_lines(int(sys.argv[1]), sys.argv[2] == "own"):
        sys.stdout.write(line)
    sys.stdout.flush()
except BrokenPipeError:
    pass
"""

_WORKER = """
import json, resource, sys, time
import msgspec
from orchestrator.fleet.collect import stream
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.pipeline import Pipeline, bulk
from orchestrator.platforms.classify import classify
from orchestrator.policy.load import default_path, load
what = sys.argv[1]
if what in ("loads", "untyped"):
    work, items = json.loads if what == "loads" else msgspec.json.Decoder().decode, sys.stdin.buffer
else:
    pipeline = Pipeline(load(default_path(), knowledge()), knowledge())
    work = {"decode": id, "classify": classify, "judge": pipeline.judge, "plan": pipeline.plan}[what]
    items = stream("-")
count, start = 0, time.process_time()
with bulk():
    for item in items:
        work(item)
        count += 1
print(count, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""

_SAID = {
    "loads": "json.loads of each line",
    "untyped": "msgspec, untyped, of each line",
    "decode": "facts",
    "classify": "facts, platform",
    "judge": "facts, platform, decision",
    "plan": "facts, platform, decision, plan",
}


def measure(what: str, hosts: int, own_signals: bool) -> tuple[float, float]:
    """CPU µs per host and peak MiB of a process that does ``what`` with that many hosts."""
    mixture = "own" if own_signals else "common"
    make = subprocess.Popen([sys.executable, "-c", _MAKE, str(hosts), mixture], stdout=subprocess.PIPE, cwd=ROOT)
    run = subprocess.run(
        [sys.executable, "-c", _WORKER, what], stdin=make.stdout, capture_output=True, text=True, check=True, cwd=ROOT
    )
    if make.wait() != 0:
        raise SystemExit("the hosts could not be made")
    count, seconds, memory = run.stdout.split()
    if int(count) != hosts:
        raise SystemExit(f"{hosts} hosts went in, {count} came out")
    return float(seconds) / hosts * 1e6, int(memory) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1_000_000)
    options = parser.parse_args()
    fewer = min(options.hosts, 100_000)  # enough for what remembers nothing
    for own_signals in (False, True):
        print("each host with its own signals:" if own_signals else "signals repeat, all else differs:")
        floor = 0.0
        for what, said in _SAID.items():
            hosts = options.hosts if what in ("judge", "plan") else fewer
            cost, memory = measure(what, hosts, own_signals)
            floor = floor or cost
            print(f"  {said:32} {hosts:8} hosts {cost:6.1f} µs {cost / floor:5.2f} × json.loads  peak {memory:.0f} MiB")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
