# SPDX-License-Identifier: Apache-2.0
"""A run on the PostgreSQL queue while workers are killed and the server goes away: is every host changed exactly once?

    python benchmarks/chaos.py [--shards 200] [--size 5] [--workers 3] [--kills 12] [--cuts 6] [--restarts 2] [--patience 45]

A real PostgreSQL server, a controller process with the real queue and the real campaign, worker processes with the real
ShardWorker, and a child process for each shard, as in `kdo worker`. Only what Ansible would do on a host is simulated: a host
is a line in a file that is opened with O_APPEND, and its transaction writes that line. A host that is changed twice has two
lines, whoever wrote them and however they died.

Undisturbed first, then disturbed: SIGKILL for a worker or for a child of one, at random, and a new worker for each that is
gone; pg_terminate_backend for all connections; the server stopped (fast, then immediate, in turn) and started again.
``--patience``: seconds of silence after which a worker counts as dead (the product's is 45; tests use less).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

_TRANSACTION = 0.05  # seconds of one host


# -- the processes that are part of a run -------------------------------------------------------------------------------------


def _hurry(patience: float) -> None:
    """Believe in silent workers for another time than the product does, in this process."""
    from orchestrator.engine import queue
    from orchestrator.store import leases

    leases.PATIENCE, leases.BEAT = int(patience), max(1, int(patience / 4.5))
    queue.HEARTBEAT, queue.STALLED = patience / 4.5, patience / 1.29


def child(log: str) -> int:
    """What `python -m orchestrator.engine.child` is, over simulated hosts."""
    from orchestrator.documents.verdict import Outcome
    from orchestrator.engine import child as real
    from orchestrator.engine import work
    from orchestrator.fleet import session
    from orchestrator.fleet.collect import Collected
    from tests.simulated import drifted, settled

    def from_hosts(_whom: object, _targets: object, *, hosts: Sequence[str], progress: object = None) -> Collected:
        changed = {line.split()[0] for line in Path(log).read_text().splitlines()}
        return Collected(facts=[settled(h) if h in changed else drifted(h) for h in hosts])

    def transact(_whom: Any, plans: Any, _hash: str, *, check: bool = False, progress: Any = None, part: str = "") -> list[Outcome]:  # fmt: skip
        out = []
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        for p in plans:
            time.sleep(_TRANSACTION)
            os.write(file, f"{p.host} {os.getpid()} {time.time():.3f}\n".encode())
            out.append(Outcome(host=p.host, state="committed", changed=True, transaction=f"t-{p.host}-{os.getpid()}"))
        os.close(file)
        return out

    work.from_hosts = session.from_hosts = from_hosts  # type: ignore[assignment]
    session.transact = transact  # type: ignore[assignment]
    return real.main()


def worker(url: str, log: str, patience: float) -> int:
    """What `kdo worker` is, with such children."""
    import asyncio

    from orchestrator.engine.queue import ShardWorker
    from orchestrator.fleet.inventory import Host, Inventory
    from orchestrator.store import runs
    from orchestrator.store.store import Store

    def variables(run: str, shard: int) -> bytes:
        with Store(url) as store:
            names = [h.host for h in runs.hosts_of(store.database, run, shard=shard, states=runs.OPEN)]
        return Inventory({n: Host(n) for n in names}).subset(names)

    made = ShardWorker(url, ["default"], 2, variables, lambda text: print(text, flush=True))
    made.command = (sys.executable, __file__, "--child", log, "--patience", str(patience))
    asyncio.run(made.run())
    return 0


def controller(url: str, hosts: int, size: int) -> int:
    """What `kdo apply --engine queue` is after its plan; what `kdo runs resume` is where the run is there already."""
    from orchestrator.checks.choice import PolicyChoice
    from orchestrator.documents.plan import Rollout
    from orchestrator.engine.begin import begin_apply
    from orchestrator.engine.campaign import Campaign
    from orchestrator.engine.job import Settings
    from orchestrator.engine.queue import QueueExecutor
    from orchestrator.fleet.inventory import Host, Inventory
    from orchestrator.store import runs
    from orchestrator.store.hosts import Document
    from orchestrator.store.store import Store
    from tests.simulated import drifted

    class Said:
        def wave(self, run: Any, wave: Any, tally: dict[str, int]) -> None:
            """Nothing to show."""

        def note(self, text: str) -> None:
            print(text, flush=True)

    pipeline = PolicyChoice().pipeline()
    names = [f"h{n:05d}" for n in range(hosts)]
    inventory = Inventory({n: Host(n) for n in names})
    with Store(url) as store:
        there = runs.listed(store.database, 1)
        if there:
            run = there[0]
        else:
            how = Settings(shard=size, engine="queue", rollout=Rollout(waves=["10%", "100%"], max_fail="0"))
            plans = ((n, Document.of("plan", pipeline.plan(drifted(n)))) for n in names)
            run = begin_apply(store, pipeline.policy, inventory, how, plans, "c" * 64)
        state = Campaign(store, run, inventory, QueueExecutor(store), Said()).go()
    print(f"ended: {state}", flush=True)
    return 0 if state == "done" else 1


# -- what disturbs it ---------------------------------------------------------------------------------------------------------


@dataclass
class Fight:
    """One run with its processes. Every process that is killed is one that was started here."""

    folder: Path
    server: Any
    url: str
    hosts: int
    size: int
    patience: float
    seed: int
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    count: Counter[str] = field(default_factory=Counter)
    controller: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "hosts"

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        out = (self.folder / f"{words[0].strip('-')}.log").open("ab")
        env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(self.folder)}
        command = [sys.executable, __file__, *words, "--patience", str(self.patience)]
        return subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)

    def lead(self) -> None:
        """Start the controller, or one in the place of one that is gone."""
        self.controller = self.start("--controller", self.url, "--hosts", str(self.hosts), "--size", str(self.size))

    def staff(self, workers: int) -> None:
        """As many workers as there are to be."""
        for gone in [w for w in self.workers if w.poll() is not None]:
            self.workers.remove(gone)
            if gone.returncode != -signal.SIGKILL:
                self.count["workers that ended by themselves"] += 1
        while len(self.workers) < workers:
            self.workers.append(self.start("--worker", self.url, "--log", str(self.log)))

    def done(self) -> int:
        return len(self.log.read_bytes().splitlines())

    def kill(self, luck: random.Random) -> None:
        """One worker, or one child of a worker, at once."""
        victim = luck.choice(self.workers)
        mine = children(victim.pid)
        if mine and luck.random() < 0.4:
            with suppress(ProcessLookupError):
                os.kill(luck.choice(mine), signal.SIGKILL)
            self.count["shard processes killed"] += 1
            return
        victim.kill()
        victim.wait()
        self.count["workers killed"] += 1

    def cut(self) -> None:
        """End every connection of the server to this store."""
        import psycopg

        with suppress(psycopg.Error), psycopg.connect(self.server.url, autocommit=True) as connection:
            sql = (
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            )
            self.count["connections cut"] += len(connection.execute(sql, (self.url.rsplit("/", 1)[1],)).fetchall())
            self.count["cuts"] += 1

    def restart(self, how: str) -> None:
        """The server, as an upgrade (fast) or a crash (immediate) would."""
        self.server.stop(how)
        time.sleep(2)
        self.server.start()
        self.count[f"server restarts ({how})"] += 1

    def end(self) -> None:
        for process in [*self.workers, *([self.controller] if self.controller else [])]:
            if process.poll() is None:
                process.terminate()
        for process in self.workers:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def children(pid: int) -> list[int]:
    """Processes whose parent that is."""
    with suppress(OSError):
        return [int(x) for t in Path(f"/proc/{pid}/task").iterdir() for x in (t / "children").read_text().split()]
    return []


def fight(server: Any, folder: Path, name: str, *, shards: int, size: int, workers: int, kills: int, cuts: int, restarts: int,
          patience: float, seed: int = 1, limit: float = 900) -> dict[str, Any]:  # fmt: skip
    """One run, disturbed so often. Each disturbance comes when another part of the hosts is done."""
    folder.mkdir(mode=0o700)
    url = server.database(name)
    from orchestrator.engine.queue import prepare
    from orchestrator.store.store import Store

    with Store(url) as store:
        prepare(store)
    luck = random.Random(seed)
    hosts = shards * size
    how = Fight(folder, server, url, hosts, size, patience, seed)
    how.log.touch()
    orders = ["kill"] * kills + ["cut"] * cuts
    luck.shuffle(orders)
    for n in range(restarts):  # spread over the run, fast and immediate in turn
        orders.insert((n + 1) * len(orders) // (restarts + 1), ("fast", "immediate")[n % 2])
    due = [(hosts * (n + 1) // (len(orders) + 2), what) for n, what in enumerate(orders)]
    begun = time.monotonic()
    try:
        how.lead()
        while time.monotonic() - begun < limit:
            how.staff(workers)
            if how.controller is not None and (code := how.controller.poll()) is not None:
                if code == 0:
                    break
                how.count["controllers that ended by themselves"] += 1
                time.sleep(1)
                how.lead()
            while due and how.done() >= due[0][0]:
                what = due.pop(0)[1]
                if what == "kill":
                    how.kill(luck)
                elif what == "cut":
                    how.cut()
                else:
                    how.restart(what)
            time.sleep(0.1)
        wall = time.monotonic() - begun
    finally:
        how.end()
    return {**judged(how, url), "wall": wall, "disturbances left": len(due), **how.count}


def judged(how: Fight, url: str) -> dict[str, Any]:
    """What the hosts saw, and what the store says of it."""
    from orchestrator.store import audit, runs
    from orchestrator.store.hosts import numbers
    from orchestrator.store.store import Store

    seen = Counter(line.split()[0] for line in how.log.read_text().splitlines())
    with Store(url) as store:
        run = runs.get(store.database, "last")
        shards = runs.shards(store.database, run.id)
        verified = audit.verify(store.database)
        said = Counter(e.what for e in audit.entries(store.database))
        return {
            "state": run.state,
            "hosts": how.hosts,
            "shards": len(shards),
            "hosts changed once": sum(n == 1 for n in seen.values()),
            "hosts changed more than once": sum(n > 1 for n in seen.values()),
            "hosts never changed": how.hosts - len(seen),
            "tally": runs.tally(store.database, run.id),
            "states": numbers(store.database, "").states,
            "attempts": sum(s.attempt for s in shards),
            "requeued": sum(max(0, s.attempt - 1) for s in shards),
            "audit entries": verified.entries,
            "audit broken": verified.broken,
            "audited transactions": said["transaction committed"] + said["transaction found committed"],
            "found committed": said["transaction found committed"],
            "leases left": len(store.database.read("SELECT name FROM lease")),
        }


def faults(found: dict[str, Any]) -> list[str]:
    """What must not be."""
    hosts = found["hosts"]
    wanted = {"state": "done", "hosts changed once": hosts, "hosts changed more than once": 0, "hosts never changed": 0,
              "tally": {"changed": hosts}, "states": {"changed": hosts}, "audit broken": None, "audited transactions": hosts,
              "disturbances left": 0}  # fmt: skip
    return [f"{k}: {found[k]}, not {v}" for k, v in wanted.items() if found[k] != v]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("shards", 200), ("size", 5), ("workers", 3), ("kills", 12), ("cuts", 6), ("restarts", 2), ("seed", 1)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--patience", type=float, default=45.0)
    parser.add_argument("--save", action="store_true", help="keep the figures in benchmarks/results/chaos.json")
    parser.add_argument("--keep", type=Path, help="a folder that does not exist yet, for the logs of all processes")
    for name in ("controller", "worker", "child", "log", "hosts"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _hurry(options.patience)
    if options.child:
        return child(options.child)
    if options.worker:
        return worker(options.worker, options.log, options.patience)
    if options.controller:
        return controller(options.controller, int(options.hosts), options.size)
    from tests.postgres import server

    how = {"shards": options.shards, "size": options.size, "workers": options.workers, "patience": options.patience}
    with ExitStack() as stack:
        place = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdo-chaos-")))
        place.mkdir(exist_ok=True)
        running = stack.enter_context(server(place))
        calm = fight(running, place / "calm", "calm", **how, kills=0, cuts=0, restarts=0)
        print(json.dumps(calm, indent=1), flush=True)
        wild = fight(running, place / "wild", "wild", **how, kills=options.kills, cuts=options.cuts,
                     restarts=options.restarts, seed=options.seed)  # fmt: skip
        print(json.dumps(wild, indent=1), flush=True)
    bad = [*faults(calm), *faults(wild)]
    print(
        f"wall: {wild['wall']:.0f} s disturbed, {calm['wall']:.0f} s undisturbed: {wild['wall'] / calm['wall']:.2f} ×"
    )
    print("\n".join(bad) or "every host exactly once")
    if options.save:
        kept = {"undisturbed": calm, "disturbed": wild, "patience": options.patience, "workers": options.workers,
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
        file = Path(__file__).parent / "results" / "chaos.json"
        file.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
