# SPDX-License-Identifier: Apache-2.0
"""Who does shards: processes of this machine, or workers elsewhere. The seam between a run and where its work happens."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol

import msgspec

from orchestrator.engine.child import CANCELLED, DONE, TAKEN, WRONG
from orchestrator.engine.job import Job
from orchestrator.resources import command_of

_REASONS = 600  # characters of what a worker said last

#: What does one shard, its job on standard input: through a pipe, never through arguments or the environment.
COMMAND = tuple(command_of("orchestrator.engine.child"))


@dataclass(frozen=True)
class Ended:
    """A shard that is not being worked on any more. ``ok``: done; ``again``: worth another attempt."""

    shard: int
    ok: bool
    why: str = ""
    again: bool = True


def child_environment() -> dict[str, str]:
    """This process's own, and who its parent is: a shard ends with the one that counts on it."""
    return {**os.environ, "KDO_PARENT": str(os.getpid())}


class Executor(Protocol):
    """Takes shards and says when they have ended. Nothing in here changes what a shard is."""

    def room(self) -> int:
        """How many more shards it would take now."""

    def submit(self, job: Job) -> None:
        """Take a shard."""

    def poll(self, seconds: float) -> list[Ended]:
        """What has ended, after waiting at most so long."""

    def busy(self) -> int:
        """How many shards it has."""

    def stop(self) -> None:
        """End what is under way, at once."""


@dataclass
class _Child:
    job: Job
    process: subprocess.Popen[bytes]
    said: IO[bytes]


class LocalExecutor:
    """One process for each shard, as many at a time as there are CPUs."""

    def __init__(self, slots: int = 0) -> None:
        self.slots = slots or os.cpu_count() or 1
        self._children: dict[int, _Child] = {}

    def room(self) -> int:
        """Free places."""
        return self.slots - len(self._children)

    def busy(self) -> int:
        """Processes at work."""
        return len(self._children)

    def submit(self, job: Job) -> None:
        """Start a process."""
        said = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
            env=child_environment(),
        )  # fmt: skip
        assert process.stdin is not None  # noqa: S101
        try:
            process.stdin.write(msgspec.json.encode(job))
            process.stdin.close()
        except BrokenPipeError:
            pass
        self._children[job.shard] = _Child(job, process, said)

    def poll(self, seconds: float) -> list[Ended]:
        """Processes that have ended."""
        deadline = time.monotonic() + seconds
        while True:
            found = [n for n, c in self._children.items() if c.process.poll() is not None]
            if found or time.monotonic() >= deadline:
                return [self._end(n) for n in found]
            time.sleep(0.05)

    def _end(self, number: int) -> Ended:
        child = self._children.pop(number)
        child.said.seek(0, os.SEEK_END)
        child.said.seek(max(0, child.said.tell() - _REASONS))
        said = child.said.read().decode("utf-8", "replace").strip()
        child.said.close()
        code = child.process.returncode
        if code == DONE:
            return Ended(number, True)
        if code in (CANCELLED, TAKEN):
            return Ended(number, False, {CANCELLED: "cancelled", TAKEN: "another worker has it"}[code], again=False)
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        return Ended(number, False, f"{how}{': ' + said if said else ''}", again=code != WRONG)

    def stop(self) -> None:
        """Ask every process to end; Ansible's are ended by them."""
        for child in self._children.values():
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        for child in self._children.values():
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


class HereExecutor:
    """Shards in this very process, one after the other: for simulations, where there is no host to wait for."""

    def __init__(self, do: Callable[[Job], None]) -> None:
        self.do = do
        self._ended: list[Ended] = []

    def room(self) -> int:
        """One at a time."""
        return 1 - len(self._ended)

    def busy(self) -> int:
        """What has ended and was not asked for."""
        return len(self._ended)

    def submit(self, job: Job) -> None:
        """Do it now."""
        self.do(job)
        self._ended.append(Ended(job.shard, True))

    def poll(self, seconds: float) -> list[Ended]:
        """What has ended."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Nothing is under way between two calls."""
