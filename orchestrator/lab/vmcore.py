# SPDX-License-Identifier: Apache-2.0
"""Judges what a crash left behind: the dump itself, on the controller, and what the capture kernel said of itself.

Neither an active service, nor ``kexec_crash_loaded``, nor "saved vmcore" on the console proves a dump: makedumpfile
reading it back, and the panic in the kernel log that the dump contains, do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.lab.guest import CRASH_SECONDS, Guest
from orchestrator.lab.process import LabError, run

COREDIR: Final = "/var/crash"
PANIC: Final = "Kernel panic - not syncing: sysrq triggered crash"
MAKEDUMPFILE_SECONDS: Final = 120  # a good dump takes seconds; on a truncated one -R never ends
SAVED: Final = r"saved vmcore"
LOST: Final = r"Out of memory|Kernel panic - not syncing|failed to save|makedumpfile failed|emergency mode"
_COMMAND_LINE = re.compile(r"(?:^|\])\s*Command line: (.*)$")
_CPUS = re.compile(r"Brought up \d+ nodes?, (\d+) CPUs?")


@dataclass(frozen=True)
class DumpVerdict:
    """What is known of the newest dump of a guest.

    ``path`` is the file in the guest ("" when there is none), ``size`` its bytes, ``panic`` the panic line that the
    dump's own kernel log contains ("" when none), ``complete`` whether makedumpfile read the whole dump back and the
    panic is the one that was ordered, ``problems`` everything that speaks against it.
    """

    path: str
    size: int
    panic: str
    complete: bool
    problems: tuple[str, ...] = ()
    local: Path | None = None  # the rebuilt dump on the controller, if complete; private data


@dataclass(frozen=True)
class Capture:
    """What the capture kernel said on the console; ``cpus`` is None when it never said."""

    command_line: str
    cpus: int | None
    saved: bool


def wait_capture(guest: Guest, since: int, deadline: float = CRASH_SECONDS) -> Capture:
    """Wait from the console position of :meth:`Guest.crash` until the capture kernel has reset the guest.

    Raises :class:`LabError` when it does not within ``deadline`` seconds. A capture kernel that came up and failed is
    no error but ``saved=False``. Start the guest again with :meth:`Guest.restart`.
    """
    guest.wait_console(re.escape(PANIC), deadline, since=since)
    guest.wait_reset(deadline)
    lines = guest.console.texts(since)
    return Capture(capture_command_line(lines), capture_cpus(lines), any(re.search(SAVED, text) for text in lines))


def capture_command_line(console_lines: Sequence[str]) -> str:
    """The capture kernel's own ``Command line:``, the first after the panic; "" when it never printed one."""
    return _after_panic(console_lines, _COMMAND_LINE)


def capture_cpus(console_lines: Sequence[str]) -> int | None:
    """How many CPUs the capture kernel brought up; None when it did not say."""
    found = _after_panic(console_lines, _CPUS)
    return int(found) if found else None


def capture_problems(console_lines: Sequence[str]) -> list[str]:
    """Console lines after the panic that tell of a failed capture."""
    start = _panic_position(console_lines)
    return [] if start is None else [t for t in console_lines[start + 1 :] if re.search(LOST, t)]


def judge_vmcore(guest: Guest, workdir: Path, *, coredir: str = COREDIR) -> DumpVerdict:
    """Copy the newest dump of a running guest to ``workdir`` on the controller and read it there.

    Never raises for a bad or missing dump: that is in ``problems``. Raises :class:`LabError` when the guest cannot be
    reached.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    workdir.chmod(0o700)  # a vmcore is a machine's memory
    listed = guest.read(
        f"find {shlex.quote(coredir)} -mindepth 2 -maxdepth 2 -type f -name 'dump*' -printf '%T@ %s %p\\n' | sort -n"
    ).splitlines()
    if not listed:
        return DumpVerdict("", 0, "", False, (f"no dump below {coredir}",))
    _, size_text, path = listed[-1].split(" ", 2)
    if int(size_text) == 0:
        return DumpVerdict(path, 0, "", False, (f"{path} is empty",))
    return judge_file(path, guest.copy_from(path, workdir / "vmcore.flattened"), workdir)


def judge_received(dumps: Path, workdir: Path) -> DumpVerdict:
    """Read the newest dump that a server has received in ``dumps``, a directory of the controller.

    Never raises for a bad or missing dump: that is in ``problems``.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    workdir.chmod(0o700)
    found = sorted(dumps.glob("*/dump*"), key=lambda file: file.stat().st_mtime)
    if not found:
        return DumpVerdict("", 0, "", False, (f"no dump below {dumps}",))
    return judge_file(str(found[-1]), found[-1], workdir)


def judge_file(path: str, flattened: Path, workdir: Path) -> DumpVerdict:
    """Read one flattened dump on the controller; ``path`` is where it was found."""
    size, problems = flattened.stat().st_size, []
    if size == 0:
        return DumpVerdict(path, 0, "", False, (f"{path} is empty",))
    if "-incomplete" in path:
        problems.append(f"{path}: kdump-tools did not finish it")
    core = workdir / "vmcore"
    problems += _rebuild(flattened, core)
    panic = ""
    if not problems:
        panic, unread = panic_of(core, workdir / "dmesg.txt")
        problems += unread
    if not problems and panic != PANIC:
        problems.append(f"the dump's kernel log shows {panic or 'no panic'!r}, not the ordered crash")
    return DumpVerdict(path, size, panic, not problems, tuple(problems), None if problems else core)


def _rebuild(flattened: Path, core: Path) -> list[str]:
    """Turn the flattened stream into a dump with ``makedumpfile -R``; returns problems."""
    core.unlink(missing_ok=True)
    try:
        # exec: the timeout has to end makedumpfile itself, not a shell above it
        command = f"exec makedumpfile -R {shlex.quote(str(core))} < {shlex.quote(str(flattened))}"
        done = run(["sh", "-c", command], stage="makedumpfile -R", timeout=MAKEDUMPFILE_SECONDS, check=False)
    except LabError as error:
        return [str(error)]
    if done.returncode or not core.exists():
        return [f"makedumpfile -R failed ({done.returncode}): {(done.stdout + done.stderr).strip()[-300:]}"]
    return []


def panic_of(core: Path, log: Path) -> tuple[str, list[str]]:
    """(panic line in the kernel log of ``core`` or "", problems)."""
    log.unlink(missing_ok=True)
    try:
        done = run(["makedumpfile", "--dump-dmesg", core, log], stage="makedumpfile --dump-dmesg",
                   timeout=MAKEDUMPFILE_SECONDS, check=False)  # fmt: skip
    except LabError as error:
        return "", [str(error)]
    if done.returncode or not log.exists():
        return "", [f"--dump-dmesg failed ({done.returncode}): {(done.stdout + done.stderr).strip()[-300:]}"]
    found = re.findall(r"Kernel panic - not syncing.*", log.read_text(errors="replace"))
    return (found[-1].strip() if found else ""), []


def _panic_position(lines: Sequence[str]) -> int | None:
    return next((i for i, text in enumerate(lines) if "Kernel panic - not syncing" in text), None)


def _after_panic(lines: Sequence[str], pattern: re.Pattern[str]) -> str:
    start = _panic_position(lines)
    for text in lines[start + 1 :] if start is not None else ():
        match = pattern.search(text)
        if match:
            return match[1].strip()
    return ""
