# SPDX-License-Identifier: Apache-2.0
"""What it costs to remember and to lead a fleet, from 100 to 100,000 simulated hosts: CPU, peak memory, store size, `kdo status`.

    python benchmarks/fleet.py [--hosts 100,1000,10000,100000] [--stores sqlite,postgresql] [--save] [--plot]

The hosts are documents (tests/simulated.py): of every hundred 38 are as the policy wants them, 30 have drifted, 10 are bare,
5 do not answer, and 17 are the recorded hosts of tests/hosts (other architectures, other hypervisors). Everything above them is
the real thing: the store, waves, shards, the gate, the command line. Each phase is a process of its own, whose CPU time and
peak memory (VmHWM) are taken; "before" is its memory when everything is imported and the inventory is read.

    inventory   ansible-inventory reads a file of all hosts (its children's CPU apart), as `kdo sweep -i FILE` does first
    drive       a sweep and an apply of every host whose shards are done by a few SQL statements each: the controller alone
    sweep       a sweep whose shards are done here as a worker does them: decide, plan, validate, compress, write
    apply       the hosts that have drifted, in waves of 1, 1 %, 10 % and 100 %, in the same way
    status …    `kdo status`, `kdo runs show`, `kdo runs compare` on that store, as processes, the median of several tries

CPU of judging (what `looked` does) and of writing (`keep_seen`) is worker work and is given apart from the driver's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.phases import name_of  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "fleet.json"
PLOT = ROOT / "docs" / "growth.svg"
PHASES = Path(__file__).parent / "phases.py"
TRIES = 7


def phase(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """One phase in a process of its own."""
    command = [sys.executable, str(PHASES), name, json.dumps(given)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": given["folder"]}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=given["folder"])
    if done.returncode != 0:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def command(words: list[str], folder: str, tries: int) -> dict[str, float]:
    """A verb of `kdo` as a process: the median of its wall time and of its CPU time, and its peak memory."""
    walls, used, memory, code = [], [], 0.0, 0
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": folder, "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(tries):
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env
        )
        _, status, usage = os.wait4(process.pid, 0)
        walls.append(time.monotonic() - begun)
        used.append(usage.ru_utime + usage.ru_stime)
        memory, code = max(memory, usage.ru_maxrss / 1024), os.waitstatus_to_exitcode(status)
        process.returncode = code
        said = process.stderr.read().decode() if process.stderr else ""
        if code not in (0, 2, 3, 4):
            raise SystemExit(f"{words}: {said}")
    return {"wall": statistics.median(walls), "cpu": statistics.median(used), "peak": memory, "exit": code}


# -- a whole fleet --------------------------------------------------------------------------------------------------------


def size_of(url: str, folder: str) -> int:
    """Bytes of a store; asked for in another process, because a verb's peak memory begins with that of its parent."""
    return int(phase("size", {"url": url, "folder": folder})["bytes"])


def fleet(hosts: int, kind: str, place: Any) -> dict[str, Any]:
    """Every phase for one number of hosts on one kind of store. ``place``: name → URL of an empty store."""
    out: dict[str, Any] = {"hosts": hosts, "store": kind, "at": datetime.now(UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[0]}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="kdo-fleet-") as folder:
        given = {"hosts": hosts, "folder": folder, "url": place("drive", folder)}
        if kind == "sqlite":
            out["inventory"] = phase("inventory", given)
            show(hosts, kind, "inventory", out["inventory"])
        out["drive"] = phase("drive", given)
        show(hosts, kind, "drive", out["drive"])
        url = given["url"] = place("fleet", folder)
        empty = size_of(url, folder) if "://" in url else 0
        out["sweep"] = phase("sweep", given)
        show(hosts, kind, "sweep", out["sweep"])
        out["bytes_after_sweep"] = size_of(url, folder) - empty
        out["apply"] = phase("apply", given)
        show(hosts, kind, "apply", out["apply"])
        out["bytes_after_apply"] = size_of(url, folder) - empty
        print(f"{hosts:>7,} {kind:10} store     {out['bytes_after_sweep'] / hosts:8.0f} bytes per host after the sweep, "
              f"{out['bytes_after_apply'] / hosts:.0f} after the apply", flush=True)  # fmt: skip
        tries = ["--store", url]
        out["help"] = command(["--help"], folder, TRIES)
        out["status"] = command(["status", *tries], folder, TRIES)
        out["status_host"] = command(["status", name_of(0), *tries], folder, TRIES)
        out["runs_show"] = command(["runs", "show", out["sweep"]["run"], *tries], folder, 3)
        out["runs_compare"] = command(["runs", "compare", out["sweep"]["run"], out["apply"]["run"], *tries], folder, 3)
        for what in ("help", "status", "status_host", "runs_show", "runs_compare"):
            got = out[what]
            print(f"{hosts:>7,} {kind:10} {what:12} wall {got['wall'] * 1000:7.0f} ms  CPU {got['cpu'] * 1000:7.0f} ms  "
                  f"peak {got['peak']:.0f} MiB", flush=True)  # fmt: skip
    return out


def show(hosts: int, kind: str, what: str, got: dict[str, Any]) -> None:
    parts = "".join(f"  {k} {v / got['hosts'] * 1e6:.0f}" for k, v in got.get("parts", {}).items())
    if what == "drive":
        parts = "".join(f"  {k} {got[k] / hosts * 1e6:.0f}" for k in ("begin_sweep", "sweep", "begin_apply", "apply"))
    each = got["cpu"] / got.get("hosts", hosts) * 1e6
    rate = f"  {got['hosts'] / got['wall']:.0f} hosts/s" if "wall" in got else ""
    print(f"{hosts:>7,} {kind:10} {what:9} {each:8.0f} µs CPU per host{parts}{rate}  peak {got['peak']:.0f} MiB "
          f"(before: {got['before']:.0f})", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="100,1000,10000,100000")
    parser.add_argument("--stores", default="sqlite")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/fleet.json")
    parser.add_argument("--plot", action="store_true", help="draw docs/growth.svg from what was kept")
    options = parser.parse_args()
    if options.plot:
        from benchmarks.growth import draw

        PLOT.write_text(draw(json.loads(RESULTS.read_text())["fleets"]), encoding="utf-8")
        return
    counts = [int(n) for n in options.hosts.split(",")]
    kept: dict[str, Any] = json.loads(RESULTS.read_text()) if options.save and RESULTS.exists() else {"fleets": []}
    for kind in options.stores.split(","):
        with _places(kind) as place:
            for hosts in counts:
                found = fleet(hosts, kind, place)
                if options.save:
                    rest = [f for f in kept["fleets"] if (f["hosts"], f["store"]) != (hosts, kind)]
                    kept["fleets"] = sorted([*rest, found], key=lambda f: (f["store"], f["hosts"]))
                    kept["machine"] = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.release()}  # fmt: skip
                    RESULTS.parent.mkdir(exist_ok=True)
                    RESULTS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


@contextmanager
def _places(kind: str) -> Iterator[Any]:
    """Where empty stores are made."""
    if kind == "sqlite":
        yield lambda name, folder: str(Path(folder) / f"{name}.db")
        return
    from tests.postgres import server

    folder = Path(tempfile.mkdtemp())
    try:
        with server(folder) as found:
            yield lambda name, _folder: found.database(f"{name}{time.monotonic_ns()}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
