# SPDX-License-Identifier: Apache-2.0
"""The simulated fleet of benchmarks/fleet.py and its phases: ``python benchmarks/phases.py NAME JSON`` runs one and prints what it cost.

Each phase is a process of its own, so that its CPU time and its peak memory are its own.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

WAVES = ["1", "1%", "10%", "100%"]
_DRIFTED = range(38, 68)
_GONE = range(78, 83)
SHARD = 200


def name_of(number: int) -> str:
    return f"host{number:06d}.example"


def names(count: int) -> list[str]:
    return [name_of(n) for n in range(count)]


def peak() -> float:
    """MiB that this process has had at most. Not ru_maxrss: that begins with what the parent had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


class Clock:
    """CPU seconds of named parts of a process."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begun = time.process_time()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - begun

    def timed(self, name: str, function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return run


class Quiet:
    """Says nothing of a run."""

    def wave(self, run: Any, wave: Any, tally: dict[str, int]) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


def inventory_of(count: int) -> Any:
    """As the controller has it after reading: through the same code as the answer of ansible-inventory."""
    from orchestrator.fleet.inventory import Inventory, _hosts

    found = names(count)
    data = {
        "_meta": {"hostvars": {h: {"ansible_host": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"} for n, h in enumerate(found)}},
        "all": {"children": ["web", "db"]},
        "web": {"hosts": found[::2]},
        "db": {"hosts": found[1::2]},
    }  # fmt: skip
    return Inventory(_hosts(data))


class Hosts:
    """The fleet, as tests/simulated.py has it, without remembering facts: memory that is seen is the product's."""

    def __init__(self, clock: Clock) -> None:
        from tests.planning.test_plan import armed
        from tests.platforms.hosttree import facts_of, load_host
        from tests.simulated import bare, drifted

        self.clock = clock
        self.settled, self.drifted, self.bare = armed(), drifted("x"), bare("x")
        self.recorded = []
        with tempfile.TemporaryDirectory() as scratch:
            for file in sorted((ROOT / "tests/hosts").glob("*.yaml")):
                self.recorded.append(facts_of(load_host(file), Path(scratch)))
        self.done: set[str] = set()

    def facts(self, host: str) -> Any:
        import msgspec

        number = int(host[4:10])
        kind = number % 100
        if kind < _DRIFTED.start or host in self.done:
            base = self.settled
        elif kind in _DRIFTED:
            base = self.drifted
        elif kind < _GONE.start:
            base = self.bare
        else:
            base = self.recorded[number % len(self.recorded)]
        kernel = msgspec.structs.replace(base.kernel, cmdline=base.kernel.cmdline)
        return msgspec.structs.replace(base, host=host, kernel=kernel)

    def from_hosts(self, _whom: Any, _targets: Any, *, hosts: Any, progress: Any = None) -> Any:
        from orchestrator.fleet.collect import Collected, HostProblem

        with self.clock.part("simulated hosts"):
            out = Collected()
            for host in hosts:
                if int(host[4:10]) % 100 in _GONE:
                    out.problems.append(HostProblem(host, "unreachable", "the host cannot be reached", "no route"))
                else:
                    out.facts.append(self.facts(host))
            return out

    def transact(self, _whom: Any, plans: Any, _hash: str, *, check: bool = False, progress: Any = None, part: str = "") -> Any:  # fmt: skip
        from orchestrator.documents.verdict import Outcome

        with self.clock.part("simulated hosts"):
            self.done |= {p.host for p in plans}
            return [Outcome(host=p.host, state="committed", changed=True, transaction=f"t-{p.host}") for p in plans]

    def install(self) -> None:
        """Take Ansible's place in this process."""
        from orchestrator.engine import work
        from orchestrator.fleet import session

        work.from_hosts = self.from_hosts
        session.from_hosts = self.from_hosts
        session.transact = self.transact


def settings(**more: Any) -> Any:
    from orchestrator.engine.job import Settings

    return Settings(shard=SHARD, **more)


def rollout() -> Any:
    from orchestrator.documents.plan import Rollout

    return Rollout(waves=WAVES)


# -- phases, each in a process of its own ---------------------------------------------------------------------------------


def phase_inventory(given: dict[str, Any]) -> dict[str, Any]:
    from orchestrator.fleet.inventory import resolve
    from orchestrator.fleet.runner import Whom

    file = Path(given["folder"]) / "hosts.ini"
    lines = [f"{h} ansible_host=10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n, h in enumerate(names(given["hosts"]))]
    file.write_text("\n".join(["[web]", *lines[::2], "[db]", *lines[1::2]]) + "\n")
    del lines
    before, start, children = peak(), cpu(), cpu(resource.RUSAGE_CHILDREN)
    found = resolve(Whom((str(file),)))
    assert len(found.hosts) == given["hosts"]
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"before": before, "cpu": cpu() - start, "ansible_cpu": cpu(resource.RUSAGE_CHILDREN) - children, "ansible_peak": largest}  # fmt: skip


def phase_drive(given: dict[str, Any]) -> dict[str, Any]:
    """The controller alone: shards are done by a few statements, whose time is not the driver's."""
    from orchestrator.checks.choice import PolicyChoice
    from orchestrator.engine.begin import begin_apply, begin_sweep
    from orchestrator.engine.campaign import Campaign
    from orchestrator.engine.executor import HereExecutor
    from orchestrator.store import runs
    from orchestrator.store.store import Store, now

    policy = PolicyChoice().pipeline().policy
    clock = Clock()
    inventory = inventory_of(given["hosts"])
    before, start, out = peak(), time.process_time(), dict[str, Any]()
    with Store(given["url"]) as store, Store(given["url"]) as mine:

        def done(job: Any, state: str) -> None:
            with clock.part("shards"):
                assert runs.claim(mine.database, job.run, job.shard, job.worker, now(), now())
                at = now()

                def work(s: Any) -> None:
                    s.all(
                        "INSERT INTO host (host, state, arch, hypervisor, seen, tried, since, run) SELECT host, ?, 'x86_64', 'kvm', ?, ?, ?, run "
                        "FROM run_host WHERE run = ? AND shard = ? ON CONFLICT (host) DO UPDATE SET state = excluded.state, run = excluded.run",
                        (state, at, at, at, job.run, job.shard),
                    )  # fmt: skip
                    s.all("UPDATE run_host SET state = ?, at = ? WHERE run = ? AND shard = ?", (state, at, job.run, job.shard))  # fmt: skip

                mine.database.do(work)
                runs.end_shard(mine.database, job.run, job.shard, job.worker, "done", now())

        run = begin_sweep(store, policy, inventory, settings())
        out["begin_sweep"] = time.process_time() - start
        assert Campaign(store, run, inventory, HereExecutor(lambda j: done(j, "drift")), Quiet()).go() == "done"
        out["sweep"] = time.process_time() - start - clock.spent["shards"]
        out["sweep_peak"] = peak()
        begun, shards = time.process_time(), clock.spent["shards"]
        plans = ((h, "0" * 64) for h in inventory.hosts)
        run = begin_apply(store, policy, inventory, settings(rollout=rollout()), plans, "c" * 64)
        out["begin_apply"] = time.process_time() - begun
        assert Campaign(store, run, inventory, HereExecutor(lambda j: done(j, "changed")), Quiet()).go() == "done"
        out["apply"] = time.process_time() - begun - (clock.spent["shards"] - shards)
        assert runs.tally(store.database, run.id) == {"changed": given["hosts"]}
    return {"before": before, "cpu": time.process_time() - start, "shards_cpu": clock.spent["shards"], **out}


def _shards(clock: Clock, url: str) -> Any:
    """Does shards here as a worker does them."""
    from orchestrator.engine import work
    from orchestrator.engine.child import shard_of
    from orchestrator.engine.executor import HereExecutor
    from orchestrator.store import runs
    from orchestrator.store.store import Store, now

    work.looked = clock.timed("judging", work.looked)
    work.keep_seen = clock.timed("writing", work.keep_seen)

    def do(job: Any) -> None:
        with clock.part("shards"), Store(url) as mine:
            attempt = runs.claim(mine.database, job.run, job.shard, job.worker, now(), now())
            shard_of(job, mine, attempt).perform()
            runs.end_shard(mine.database, job.run, job.shard, job.worker, "done", now())

    return HereExecutor(do)


def campaign(given: dict[str, Any], kind: str) -> dict[str, Any]:
    from orchestrator.checks.choice import PolicyChoice
    from orchestrator.engine.begin import begin_apply, begin_sweep
    from orchestrator.engine.campaign import Campaign
    from orchestrator.store import runs
    from orchestrator.store.store import Store

    policy = PolicyChoice().pipeline().policy
    clock = Clock()
    Hosts(clock).install()
    inventory = inventory_of(given["hosts"])
    executor = _shards(clock, given["url"])
    before, start, wall = peak(), time.process_time(), time.monotonic()
    with Store(given["url"]) as store:
        if kind == "sweep":
            run = begin_sweep(store, policy, inventory, settings())
        else:
            sql = "SELECT host, plan FROM host WHERE state = 'drift' ORDER BY host"
            run = begin_apply(store, policy, inventory, settings(rollout=rollout()), store.database.stream(sql), "c" * 64)  # fmt: skip
        assert Campaign(store, run, inventory, executor, Quiet()).go() == "done"
        used, wall = time.process_time() - start, time.monotonic() - wall
        tally = runs.tally(store.database, run.id)
    spent = clock.spent
    parts = {"judging": spent["judging"], "writing": spent["writing"], "simulated": spent["simulated hosts"],
             "other": spent["shards"] - spent["judging"] - spent["writing"] - spent["simulated hosts"],
             "driver": used - spent["shards"]}  # fmt: skip
    return {"before": before, "cpu": used, "wall": wall, "run": run.id, "hosts": sum(tally.values()), "tally": tally, "parts": parts}  # fmt: skip


def _size(url: str) -> int:
    if "://" in url:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            return int(row[0]) if row else 0
    import sqlite3

    with sqlite3.connect(url) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return sum(Path(url + end).stat().st_size for end in ("", "-wal") if Path(url + end).exists())


PHASES: dict[str, Any] = {
    "size": lambda given: {"bytes": _size(given["url"])},
    "inventory": phase_inventory,
    "drive": phase_drive,
    "sweep": lambda given: campaign(given, "sweep"),
    "apply": lambda given: campaign(given, "apply"),
}


if __name__ == "__main__":
    cost = PHASES[sys.argv[1]](json.loads(sys.argv[2]))
    print(json.dumps({**cost, "peak": peak()}))
