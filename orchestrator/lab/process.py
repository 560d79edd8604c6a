# SPDX-License-Identifier: Apache-2.0
"""What every room of the lab needs: one way to run a command, one error, one cache, one lock."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import Exit, KdoError

TAIL_CHARS = 2000  # of a failed command's output that an error shows


class LabError(KdoError):
    """A stage of the lab failed; ``where`` names the stage, ``why`` shows the last output."""

    exit_code = Exit.FAILED

    def __str__(self) -> str:
        """All of it: a test that fails in the lab shows nothing else."""
        return "\n".join(line for problem in self.problems for line in problem.lines())


def run(
    argv: Sequence[str | Path],
    *,
    stage: str,
    timeout: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end and return it with its text output.

    ``timeout`` is in seconds. ``env`` is added to this process's environment.
    Raises :class:`LabError` naming ``stage`` when the command is missing, is too slow, or (``check``) fails.
    """
    shown = shlex.join(os.fspath(a) for a in argv)
    feed: dict[str, object] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
            [os.fspath(a) for a in argv],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            **feed,
        )
    except FileNotFoundError as error:
        raise LabError(
            f"{argv[0]} is not installed", where=stage, fix="run orchestrator.lab.requirements.install()"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"no end after {timeout:.0f} s: {shown}", where=stage, why=_tail(error.stdout)) from error
    if check and done.returncode:
        raise LabError(f"exit code {done.returncode}: {shown}", where=stage, why=_tail(done.stdout + done.stderr))
    return done


def _tail(output: str | bytes | None) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    return text[-TAIL_CHARS:].strip()


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/kdump-orchestrator/lab``; the directory need not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kdump-orchestrator" / "lab"


@contextmanager
def exclusive(lock: Path, *, stage: str, timeout: float) -> Iterator[None]:
    """Hold an exclusive lock on the file ``lock``, waiting at most ``timeout`` seconds for another holder.

    The kernel drops the lock when the holder dies, so a killed build never blocks the next one.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + timeout
    with lock.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise LabError(f"{lock} is still held after {timeout:.0f} s", where=stage) from None
                time.sleep(0.2)
        yield
