# SPDX-License-Identifier: Apache-2.0
"""What a read-only life cycle costs the controller: plan, apply --check and validate by kdo, beside a role of many small tasks.

    python benchmarks/lifecycle.py [--hosts 40] [--json] [--save]

The hosts are real sshd endpoints as in benchmarks/lanes.py, logged in to as the user who runs this (root, for the whole of it).
CPU time is the controller's processes and all their children; sshd and what runs on hosts is not among them.

    role         benchmarks/conventional_role, once, with --check: pipelining, 20 forks, facts gathered once
    plan         kdo plan
    check        kdo apply --check
    transaction  the transaction of one host in check mode, as `apply --check` sends it to a host that is to change
    validate     kdo validate
    fast         kdo validate --lane fast
    fast-plan    kdo plan --lane fast
    fast-check   kdo apply --check --lane fast
    sweep        kdo sweep --lane fast, which plans, validates and remembers

The kernel here may have no kexec, so that kdo refuses to change these hosts; `apply --check` then ends before its second
playbook. That one is measured apart, with the plan of a simulated host, and counted as if every host were to change. The role
looks at nothing of the kind, and goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.lanes import _PR_SET_CHILD_SUBREAPER, FORKS, _cpu, _reap, in_its_own_process, inventory_of  # noqa: E402
from tests.sshd import SSHD  # noqa: E402

ROLE = Path(__file__).parent / "conventional_role"
_KDO = {
    "plan": ["plan", "--format", "jsonl"],
    "check": ["apply", "--check", "--format", "json"],
    "validate": ["validate", "--format", "jsonl"],
    "fast": ["validate", "--lane", "fast", "--format", "jsonl"],
    "fast-plan": ["plan", "--lane", "fast", "--format", "jsonl"],
    "fast-check": ["apply", "--check", "--lane", "fast", "--format", "json"],
    "sweep": ["sweep", "--lane", "fast", "--format", "json"],
}
ROWS = ("role", *_KDO, "transaction")
SUMS = {
    "kdo, Ansible lane": ("plan", "check", "transaction", "validate"),
    "kdo, looking over the fast lane": ("fast-plan", "fast-check", "transaction", "fast"),
    "kdo sweep, then apply --check": ("sweep", "fast-check", "transaction"),
}


def role(given: dict[str, Any]) -> int:
    """Hosts on which the whole role came to its end."""
    environment = {"ANSIBLE_PIPELINING": "True", "ANSIBLE_HOST_KEY_CHECKING": "True",
                   "ANSIBLE_DEPRECATION_WARNINGS": "False"}  # fmt: skip
    ansible = str(Path(sys.executable).parent / "ansible-playbook")
    command = [ansible, "-i", given["inventory"], "-f", str(FORKS), "--check", str(ROLE / "site.yml")]
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    stats = {
        line.split()[0]: {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)}
        for line in re.findall(r"^host\d+ .*$", run.stdout[run.stdout.rfind("PLAY RECAP") :], re.M)
    }
    bad = {h: s for h, s in stats.items() if s["failed"] or s["unreachable"]}
    if bad or not stats:
        print(run.stdout[-3000:], run.stderr[-2000:], file=sys.stderr)
        return 0
    given["tasks"] = max(s["ok"] + s["skipped"] for s in stats.values())
    given["skipped"] = max(s["skipped"] for s in stats.values())
    return len(stats) - len(bad)


def kdo(row: str, given: dict[str, Any]) -> int:
    """Hosts that the verb gave an answer for."""
    words = [*_KDO[row], "-i", given["inventory"], "--forks", str(FORKS)]
    words += ["--store", f"{given['home']}/store.db"] if row in ("sweep", "check", "fast-check") else []
    done = subprocess.run([sys.executable, "-m", "orchestrator", *words], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2, 3):
        print(done.stderr, file=sys.stderr)
        return 0
    if row == "sweep":
        return sum(n for s, n in json.loads(done.stdout)["hosts"].items() if s not in ("unreachable",))
    if row in ("check", "fast-check"):
        return int(given["count"]) - len(json.loads(done.stdout)["problems"])
    return len(done.stdout.splitlines())


def transaction(given: dict[str, Any]) -> int:
    """Hosts that answered to a transaction in check mode."""
    import msgspec

    from orchestrator.checks.choice import PolicyChoice
    from orchestrator.fleet.act import transact
    from orchestrator.fleet.runner import Whom
    from tests.simulated import bare

    plan = PolicyChoice().pipeline().plan(bare("x"))
    plans = [msgspec.structs.replace(plan, host=f"host{n}") for n in range(given["count"])]
    given["start"] = _cpu()
    return sum(
        o.state != "unreachable"
        for o in transact(Whom((given["inventory"],), forks=FORKS), plans, "c" * 64, check=True)
    )


def measured(row: str, config: Path) -> None:
    """Run one row and print what it cost, as JSON."""
    given = json.loads(config.read_text())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start, wall = _cpu(), time.monotonic()
    done = role(given) if row == "role" else transaction(given) if row == "transaction" else kdo(row, given)
    wall = time.monotonic() - wall
    _reap()
    more = {k: given[k] for k in ("tasks", "skipped") if k in given}
    print(json.dumps({"done": done, "cpu": _cpu() - given.get("start", start), "wall": wall, **more}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=40)
    parser.add_argument("--only", default=",".join(ROWS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/lifecycle.json")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--config", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        measured(options.row, options.config)
        return
    if not SSHD:
        raise SystemExit("openssh-server is not installed")
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="kdo-lifecycle-") as folder, ExitStack() as stack:
        home = Path(folder)
        (home / "config.json").write_text(json.dumps(inventory_of(stack, home, options.hosts)))
        for row in [r for r in ROWS if r in options.only.split(",")]:
            said = found[row] = in_its_own_process(__file__, row, home, options.hosts)
            if not options.json:
                tasks = f", {said['tasks']} tasks, {said['skipped']} skipped" if "tasks" in said else ""
                print(f"{row:12} {said['ms_per_host']:8.1f} ms CPU per host  (wall {said['wall']:.0f} s{tasks})", flush=True)  # fmt: skip
    sums = {}
    for name, rows in SUMS.items():
        if "role" in found and all(r in found for r in rows):
            total = sum(found[r]["cpu"] for r in rows)
            sums[name] = {"ms_per_host": total / options.hosts * 1000, "ratio": found["role"]["cpu"] / total}
            if not options.json:
                print(f"{name}: {' + '.join(rows)}: {sums[name]['ms_per_host']:.1f} ms, the role costs {sums[name]['ratio']:.2f} ×")  # fmt: skip
    data = {"hosts": options.hosts, "rows": found, "sums": sums, "load": os.getloadavg()[0],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
    if options.json:
        print(json.dumps(data, indent=2))
    if options.save:
        file = Path(__file__).parent / "results" / "lifecycle.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
