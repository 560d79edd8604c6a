# SPDX-License-Identifier: Apache-2.0
"""Shards on a PostgreSQL queue (Procrastinate): durable, taken by workers near the hosts, given to others when those die.

The queue only says that a shard wants to be done. What was done is in the store: a job that is delivered twice finds the shard
taken, or done, and does nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from orchestrator.engine.child import CANCELLED, DONE, TAKEN
from orchestrator.engine.executor import COMMAND, Ended, child_environment
from orchestrator.engine.job import Job
from orchestrator.errors import InvalidInput, KdoError
from orchestrator.resources import how_to_install
from orchestrator.store import leases, runs
from orchestrator.store.database import PostgresDatabase, Statements
from orchestrator.store.store import Store, now

#: Queue of hosts that name no site.
DEFAULT = "default"
#: Seconds between a worker's signs of life, and of silence before its jobs go to others: more than three of them.
HEARTBEAT, STALLED = 10.0, 35.0
_TASK = "kdo.shard"
_AWAY_PAUSE, _AWAY_TIMES = 2.0, 150  # seconds between two tries to reach the server, and how many in a row
_ABORT_LOOK = 1.0  # seconds between two looks whether a job is to be given up


class _Taken(Exception):
    """Another worker has the shard, or had it a moment ago."""


def lock_of(run: str, shard: int) -> str:
    """The name under which a shard stands in the queue."""
    return f"kdo:{run}:{shard}"


def _library() -> Any:
    try:
        import procrastinate  # noqa: PLC0415  (the extra)
    except ImportError:
        why = "Procrastinate is not installed"
        raise InvalidInput("the queue cannot be used", why=why, fix=how_to_install("fleet")) from None
    return procrastinate


def prepare(store: Store) -> None:
    """Make the queue's own tables beside the store's, once. Raises :class:`InvalidInput` where the store is no PostgreSQL."""
    if not isinstance(store.database, PostgresDatabase):
        raise InvalidInput(
            "a queue needs a store on PostgreSQL", where=store.name, why="workers on other machines cannot reach a file",
            fix="--store postgresql://HOST/DATABASE",
        )  # fmt: skip
    database = store.database
    text = (_library().schema.SchemaManager).get_schema()

    def work(s: Statements) -> None:
        database.exclusive(s)
        if s.all("SELECT to_regclass('procrastinate_jobs')")[0][0] is None:
            database.connection.execute(text)

    database.do(work)


def application(url: str, perform: Callable[..., Awaitable[None]] | None = None) -> Any:
    """Procrastinate's App: with our one task for a worker, without it for whoever only puts jobs in."""
    library = _library()
    if perform is None:
        return library.App(connector=library.SyncPsycopgConnector(conninfo=url))
    app = library.App(connector=library.PsycopgConnector(conninfo=url))
    # A shard that somebody else may still be on is looked at again until its worker is known to be alive, or silent.
    retry = library.RetryStrategy(max_attempts=60, wait=5, retry_exceptions=[_Taken])
    app.task(name=_TASK, pass_context=True, retry=retry)(perform)
    return app


def _idle(shard: runs.ShardRow, silent: str) -> bool:
    """Nobody works on it, as far as one can see."""
    return shard.state in ("lost", "waiting") or (shard.state == "running" and (shard.beat or "") < silent)


class QueueExecutor:
    """Puts shards into the queue and watches the store for what comes of them."""

    def __init__(self, store: Store) -> None:
        prepare(store)
        self.store = store
        self.app = application(store.url)
        self.app.open()
        self._run = ""
        self._pending: list[Job] = []
        self._out: set[int] = set()

    def room(self) -> int:
        """A queue takes everything."""
        return 1_000_000

    def busy(self) -> int:
        """Shards that have not come to an end."""
        return len(self._out)

    def submit(self, job: Job) -> None:
        """Take a shard; it goes into the queue with others. Variables of hosts do not: workers have inventories of their own."""
        self._run = job.run
        self._pending.append(job)
        self._out.add(job.shard)

    def _flush(self) -> None:
        if not self._pending:
            return
        sites = {s.number: s.site for s in runs.shards(self.store.database, self._run)}
        library = _library()
        while self._pending:
            job = self._pending[0]
            lock = lock_of(job.run, job.shard)
            configured = self.app.configure_task(
                _TASK, queue=sites.get(job.shard) or DEFAULT, lock=lock, queueing_lock=lock, allow_unknown=True
            )
            try:
                configured.defer(run=job.run, shard=job.shard)
            except library.exceptions.AlreadyEnqueued:
                pass
            except library.exceptions.ConnectorException:
                return  # the server is away: with the next poll
            self._pending.pop(0)

    def poll(self, seconds: float) -> list[Ended]:
        """What the store says of the shards that are out."""
        self._flush()
        found = []
        states = {s.number: s for s in runs.shards(self.store.database, self._run)} if self._out else {}
        # What is done, done by nobody, or done by somebody who has been silent for long, is not in the queue any more.
        silent = runs.silent_since(datetime.now(UTC), leases.PATIENCE)
        pending = {j.shard for j in self._pending}
        idle = {n for n in self._out - pending if _idle(states[n], silent)}
        queued = self._queued() if idle else set()
        for number in sorted(self._out):
            state = states[number].state
            if state == "done":
                found.append(Ended(number, True))
            elif state == "cancelled":
                found.append(Ended(number, False, "cancelled", again=False))
            elif number in idle and lock_of(self._run, number) not in queued:
                found.append(Ended(number, False, states[number].why or "no worker has it, and it is not in the queue"))
        self._out -= {e.shard for e in found}
        if not found:
            time.sleep(seconds)
        return found

    def _queued(self) -> set[str]:
        """The shards of the run that stand in the queue, or that a worker has taken from it."""
        sql = "SELECT lock FROM procrastinate_jobs WHERE lock LIKE ? AND status IN ('todo', 'doing')"
        return {lock for (lock,) in self.store.database.read(sql, (f"kdo:{self._run}:%",))}

    def stop(self) -> None:
        """Take back what no worker has begun. What is under way is cancelled through the run's state, or comes to its end."""
        jobs = self.store.database.read(
            "SELECT id FROM procrastinate_jobs WHERE status = 'todo' AND lock LIKE ?", (f"kdo:{self._run}:%",)
        )
        for (number,) in jobs:
            self.app.job_manager.cancel_job_by_id(number, abort=False, delete_job=True)
        self._pending = []
        states = {s.number: s.state for s in runs.shards(self.store.database, self._run)}
        cancelling = runs.state_of(self.store.database, self._run) == "cancelling"
        self._out = {n for n in self._out if states.get(n) == "running"} if cancelling else set()

    def close(self) -> None:
        """End the connections."""
        self.app.close()


Variables = Callable[[str, int], bytes]  # run, shard → the inventory of its hosts


class ShardWorker:
    """One worker: takes shards of some sites, each in a process of its own."""

    def __init__(
        self, url: str, sites: list[str], concurrency: int, variables: Variables, say: Callable[[str], None]
    ) -> None:
        self.url, self.sites, self.concurrency = url, sites, concurrency
        self.variables, self.say = variables, say
        self.name = f"{os.uname().nodename}:{os.getpid()}"
        self.command = COMMAND
        self.app: Any = None
        self._here: set[int] = set()  # jobs that are under way in this process
        self._as: set[int] = set()  # how the queue calls this worker
        self._left: Counter[int] = Counter()  # how often a job was seen that the queue wrongly takes for ours

    async def run(self, *, wait: bool = True) -> None:
        """Work until a signal comes; ``wait=False``: until the queue is empty. A server that goes away is waited for."""
        away = 0
        while True:
            begun = time.monotonic()
            try:
                return await self._work(wait)
            except (_library().exceptions.ConnectorException, OSError) as error:
                away = 1 if time.monotonic() - begun > _AWAY_PAUSE * 10 else away + 1
                if away > _AWAY_TIMES:
                    raise KdoError("the queue's server is gone", where=self.url, why=str(error)[:300]) from error
                self.say("the queue's server is away; trying again")
                await asyncio.sleep(_AWAY_PAUSE)

    async def _work(self, wait: bool) -> None:
        self.app = application(self.url, self._shard)
        async with self.app.open_async():
            rescuer = asyncio.create_task(self._rescue())
            try:
                await self.app.run_worker_async(
                    queues=self.sites, name=self.name, concurrency=self.concurrency, wait=wait, delete_jobs="successful",
                    update_heartbeat_interval=HEARTBEAT, stalled_worker_timeout=STALLED, abort_job_polling_interval=2.0,
                    fetch_job_polling_interval=2.0,
                )  # fmt: skip
            finally:
                rescuer.cancel()

    async def _rescue(self) -> None:
        """Jobs of workers that are gone go back into the queue, whoever of the living sees it first."""
        while True:
            await asyncio.sleep(HEARTBEAT)
            with suppress(Exception):  # the server may be away; there is a next time
                manager = self.app.job_manager
                await self._hand_back(manager)
                for job in await manager.get_stalled_jobs(task_name=_TASK, seconds_since_heartbeat=STALLED):
                    self.say(f"shard {job.task_kwargs.get('shard')}: its worker is gone, it goes back into the queue")
                    await manager.retry_job(job)

    async def _hand_back(self, manager: Any) -> None:
        """Jobs that ended here while the server was away: it still takes them for ours, and nobody else would get them."""
        found = [j for w in self._as for j in await manager.list_jobs_async(task=_TASK, status="doing", worker_id=w)]
        stray = {j.id: j for j in found if j.id not in self._here}
        self._left = Counter({n: self._left[n] + 1 for n in stray})
        for number, job in stray.items():
            if self._left[number] > 1:
                self.say(
                    f"shard {job.task_kwargs.get('shard')}: the queue did not hear that it has ended; it looks again"
                )
                await manager.retry_job(job)

    async def _shard(self, context: Any, run: str, shard: int) -> None:
        """The task, noted while it is under way."""
        number = int(context.job.id or 0)
        self._here.add(number)
        if context.job.worker_id is not None:
            self._as.add(context.job.worker_id)
        try:
            await self._process(context, run, shard)
        finally:
            self._here.discard(number)

    async def _process(self, context: Any, run: str, shard: int) -> None:
        """A process that does the shard, and an ear for orders to give it up."""
        loop = asyncio.get_running_loop()
        job = await loop.run_in_executor(None, self._job, run, shard, int(context.job.id or 0))
        if job is None:
            return
        process = await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE, start_new_session=True, env=child_environment(),
        )  # fmt: skip
        said = asyncio.create_task(process.communicate(msgspec.json.encode(job)))
        try:
            while not said.done():
                await asyncio.wait([said], timeout=_ABORT_LOOK)
                if context.should_abort():
                    process.terminate()
        except asyncio.CancelledError:
            process.send_signal(signal.SIGTERM)
            await said
            raise
        _, errors = await said
        code = process.returncode
        self.say(f"run {run} shard {shard}: {'done' if code == DONE else f'ended with {code}'}")
        if code == TAKEN:
            raise _Taken
        if code not in (DONE, CANCELLED):
            await loop.run_in_executor(None, self._lost, job, f"its process ended with {code}")
            raise KdoError(f"the shard ended with {code}: {errors.decode('utf-8', 'replace')[-600:]}")

    def _lost(self, job: Job, why: str) -> None:
        """A process that was killed cannot give its shard back by itself."""
        with Store(self.url, patient=True) as store:
            runs.end_shard(store.database, job.run, job.shard, job.worker, "lost", now(), why)

    def _job(self, run: str, shard: int, number: int) -> Job | None:
        """What the process gets; None where nothing is left to do."""
        with Store(self.url, patient=True) as store:
            state = runs.state_of(store.database, run)
            row = runs.shard(store.database, run, shard)
        if row is None or row.state == "done" or state in ("", "cancelled", "cancelling"):
            return None
        worker = f"{self.name}:{number}"
        return Job(store=self.url, run=run, shard=shard, worker=worker, hosts_only=self.variables(run, shard))
