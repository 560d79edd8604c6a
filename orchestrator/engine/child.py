# SPDX-License-Identifier: Apache-2.0
"""The process that does one shard: ``python -m orchestrator.engine.child``, its job on standard input.

It ends when its parent does, when its shard is given to somebody else, and when its run is cancelled; hosts that it was
changing then end their own transaction, or are found and looked at by whoever takes the shard next.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType

import msgspec

from orchestrator.engine.job import Job, policy_of, settings_of
from orchestrator.engine.work import Shard
from orchestrator.errors import InvalidInput, KdoError
from orchestrator.store import leases, runs
from orchestrator.store.store import Store, now

_LOOK = 2.0  # seconds between two looks at the run's state
_PR_SET_PDEATHSIG = 1

#: Exit codes of this process, for whoever has started it.
DONE, LOST, CANCELLED, TAKEN, WRONG = 0, 1, 3, 4, 5


class _Pulse(threading.Thread):
    """Signs of life, and an ear for orders; with a connection of its own."""

    def __init__(self, job: Job) -> None:
        super().__init__(daemon=True)
        self.job = job
        self.over = threading.Event()
        self.why = 0

    def run(self) -> None:
        beaten = 0.0
        with suppress(KdoError), Store(self.job.store, patient=True) as store:
            while not self.over.wait(_LOOK):
                if runs.state_of(store.database, self.job.run) in ("cancelling", "cancelled"):
                    return self._stop(CANCELLED)
                if time.monotonic() - beaten < leases.BEAT:
                    continue
                beaten = time.monotonic()
                if not runs.beat(store.database, self.job.run, self.job.shard, self.job.worker, now()):
                    return self._stop(TAKEN)
                leases.renew(store.database, self.job.worker, datetime.now(UTC))
        return None

    def _stop(self, why: int) -> None:
        self.why = why
        os.kill(os.getpid(), signal.SIGTERM)


def _die_with_parent(parent: int) -> None:
    """A worker without the one that counts on it must not go on."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if parent and os.getppid() != parent:
        raise KeyboardInterrupt


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def shard_of(job: Job, store: Store, attempt: int) -> Shard:
    """Everything that the shard needs, from the run's own record. Raises :class:`InvalidInput` when the policy is another one."""
    run = runs.get(store.database, job.run)
    settings = settings_of(run.settings)
    if settings.folder:
        with suppress(OSError):
            os.chdir(settings.folder)
    chosen, pipeline = policy_of(settings, run.policy_hash)
    whom = msgspec.structs.replace(settings, inventory=settings.inventory, limit="").whom(job.hosts_only, job.via)
    return Shard(store, run, job.shard, job.worker, settings, pipeline, chosen.waiver_set(pipeline), whom, attempt)


def perform(job: Job) -> int:
    """Take the shard, do it, and say how it ended."""
    pulse = _Pulse(job)
    with Store(job.store, patient=True) as store:
        database = store.database
        silent = runs.silent_since(datetime.now(UTC), leases.PATIENCE)
        attempt = runs.claim(database, job.run, job.shard, job.worker, now(), silent)
        if not attempt:
            return TAKEN
        pulse.start()
        try:
            shard = shard_of(job, store, attempt)
            shard.perform()
        except KeyboardInterrupt:
            pulse.over.set()
            if pulse.why != TAKEN:
                state = "cancelled" if pulse.why == CANCELLED else "lost"
                runs.end_shard(database, job.run, job.shard, job.worker, state, now(), "it was interrupted")
                leases.release(database, job.worker)
            return pulse.why or LOST
        except KdoError as error:
            why = "; ".join(f"{p.what}: {p.why}" if p.why else p.what for p in error.problems)[:500]
            runs.end_shard(database, job.run, job.shard, job.worker, "lost", now(), why)
            raise
        pulse.over.set()
        runs.end_shard(database, job.run, job.shard, job.worker, "done", now(), shard.note[:500])
    return DONE


def main() -> int:
    """Read the job and do it; problems of the user's go to standard error in one line each."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
        _die_with_parent(int(os.environ.pop("KDO_PARENT", "0") or 0))
        return perform(job)
    except KeyboardInterrupt:
        return LOST
    except KdoError as error:
        for problem in error.problems:
            print("\n".join(problem.lines()), file=sys.stderr)
        return WRONG if isinstance(error, InvalidInput) else LOST


if __name__ == "__main__":
    sys.exit(main())
