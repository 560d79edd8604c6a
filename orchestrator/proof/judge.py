# SPDX-License-Identifier: Apache-2.0
"""From console and dump to a verdict: what was seen of the crash, what the vmcore holds, and the likely cause of a loss."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.documents.proof import Dump
from orchestrator.lab.guest import Guest
from orchestrator.lab.process import LabError
from orchestrator.lab.vmcore import ANY_PANIC, capture_command_line, capture_cpus, judge_vmcore
from orchestrator.proof import instruments, readers
from orchestrator.proof.crashes import Failure, likely_cause

CRASH_COMES_SECONDS: Final = 300  # from the order to the panic: a lockup or a full memory takes its time
TELLING: Final = re.compile(
    r"Kernel panic - not syncing|Linux version|ommand line: |Brought up|saved vmcore|makedumpfile (Completed|Failed)|"
    r"Out of memory|The dumpfile is saved"
)
BEGINS: Final = re.compile(r"Linux version \d")  # a kernel's first line
TELLING_LINES: Final = 20
TAIL_LINES: Final = 8
LINE_CHARS: Final = 400


@dataclass(frozen=True)
class Seen:
    """The console from the order of the crash on. ``ended``: reset, shutdown, panicked, hung, …

    ``panic`` is the index of the panic line, or of what came instead: a panic in an NMI is written to the log, but the
    console is never reached before the jump.
    """

    lines: tuple[str, ...]
    panic: int
    ended: str
    waited: float  # seconds from the order to that line

    @property
    def _captured(self) -> list[str]:
        """From the panic on, with one where the console was never reached by it."""
        return [ANY_PANIC, *self.lines[self.panic :]]

    @property
    def command_line(self) -> str:
        """The capture kernel's own, "" if none was seen."""
        return capture_command_line(self._captured)

    @property
    def cpus(self) -> int | None:
        """How many CPUs the capture kernel brought up; None if it did not say."""
        return capture_cpus(self._captured)

    @property
    def capture(self) -> int | None:
        """Index of the capture kernel's first line; None if none was seen."""
        return next((i for i in range(self.panic, len(self.lines)) if BEGINS.search(self.lines[i])), None)

    def telling(self) -> list[str]:
        """The lines that a person would look for, and the last ones."""
        memory = [i for i, text in enumerate(self.lines) if instruments.MEMORY.search(text)][-1:]  # its worst moment
        kept = [i for i, text in enumerate(self.lines) if i >= self.panic and TELLING.search(text)][:TELLING_LINES]
        last = range(max(self.panic, len(self.lines) - TAIL_LINES), len(self.lines))
        return [self.lines[i][:LINE_CHARS] for i in sorted({*kept, *memory, *last}) if self.lines[i].strip()]


def watch(guest: Guest, mark: int, panic: str, deadline: float) -> Seen:
    """Watch an ordered crash from console position ``mark`` until the machine resets, stops, or ``deadline`` seconds pass.

    Raises :class:`LabError` when neither a panic nor another kernel ever shows.
    """
    began = time.monotonic()
    sign = re.compile(f"{panic}|{BEGINS.pattern}")
    guest.wait_console(sign.pattern, CRASH_COMES_SECONDS, since=mark)
    waited = time.monotonic() - began
    try:
        guest.wait_reset(deadline)
        ended = guest.ended
    except LabError:
        ended = "hung"
        guest.stop()
    lines = guest.console.texts(mark)
    position = next(i for i, text in enumerate(lines) if sign.search(text))
    return Seen(tuple(lines), position, ended, waited)


def read(guest: Guest, workdir: Path, panic: str) -> Dump:
    """The newest dump of the running guest, read by every reader that is there."""
    found = judge_vmcore(guest, workdir, panic=panic)
    names = ["makedumpfile"] if found.panic else []
    problems = list(found.problems)
    notes = []
    if found.local is not None and readers.available():
        try:
            release, line = readers.by_drgn(found.local, panic)
        except readers.CannotRead as error:
            notes.append(str(error))
        else:
            names += [f"drgn: kernel {release}"] if line else []
            problems += [] if line else [f"drgn finds no such crash in the dump of kernel {release}"]
    return Dump(
        path=found.path, size=found.size, complete=found.complete and not problems, panic=found.panic, readers=names,
        problems=problems, notes=notes,
    )  # fmt: skip


def cause(seen: Seen, dump: Dump) -> Failure:
    """Why there is no good dump, as far as the console tells."""
    capture = seen.lines[seen.capture :] if seen.capture is not None else ()
    found = likely_cause(seen.lines[seen.panic + 1 :], capture, seen.ended)
    if found is not None:
        return found
    what = dump.problems[0] if dump.problems else "the dump cannot be read"
    return Failure(id="unknown", after="capture", pattern="", what=what, fix="the console log has all that was said")
