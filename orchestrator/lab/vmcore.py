# SPDX-License-Identifier: Apache-2.0
"""Judges what a crash left behind: the dump itself, on the controller, and what the capture kernel said of itself.

Neither an active service, nor ``kexec_crash_loaded``, nor "saved vmcore" on the console proves a dump: makedumpfile
reading it back, and the panic in the kernel log that the dump contains, do.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.lab.arches import NATIVE
from orchestrator.lab.guest import CRASH_SECONDS, SSH_SECONDS, Guest
from orchestrator.lab.process import LabError, run

COREDIR: Final = "/var/crash"
PANIC: Final = "Kernel panic - not syncing: sysrq triggered crash"
ORDERED: Final = re.escape(PANIC)
ANY_PANIC: Final = "Kernel panic - not syncing"
FLATTENED: Final = b"makedumpfile"  # how a dump begins that was written to a pipe
MAKEDUMPFILE_SECONDS: Final = 120  # a good dump takes seconds; on a truncated one -R never ends
INSIDE_SECONDS: Final = 600  # the same by an emulated processor
SAVED: Final = r"saved vmcore"
LOST: Final = r"Out of memory|Kernel panic - not syncing|failed to save|makedumpfile failed|emergency mode"
# x86_64 says it early, and every architecture once more
_COMMAND_LINE = re.compile(r"(?:^|\])\s*(?:Command line|Kernel command line): (.*)$")
_CPUS = re.compile(r"Brought up \d+ nodes?, (\d+) CPUs?")

# (dump, where its kernel log may be written, panic wanted) → (line found, problems)
ReadLog = Callable[[Path, Path, str], tuple[str, list[str]]]


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


def judge_vmcore(guest: Guest, workdir: Path, *, coredir: str = COREDIR, panic: str = ORDERED) -> DumpVerdict:
    """Copy the newest dump of a running guest to ``workdir`` on the controller and read it there.

    ``panic`` is a regular expression that the panic line of the dump's kernel log has to match somewhere.
    Never raises for a bad or missing dump: that is in ``problems``. Raises :class:`LabError` when the guest cannot be
    reached. makedumpfile rebuilds dumps of every architecture, but finds the kernel log only in those of its own: the log
    of another's is read by the guest's makedumpfile.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    workdir.chmod(0o700)  # a vmcore is a machine's memory
    names = "-name 'dump*' -o -name vmcore"  # kdump-tools', and kdumpctl's
    listed = guest.read(
        f"find {shlex.quote(coredir)} -mindepth 2 -maxdepth 2 -type f \\( {names} \\) -printf '%T@ %s %p\\n' | sort -n"
    ).splitlines()
    if not listed:
        return DumpVerdict("", 0, "", False, (f"no dump below {coredir}",))
    _, size_text, path = listed[-1].split(" ", 2)
    if int(size_text) == 0:
        return DumpVerdict(path, 0, "", False, (f"{path} is empty",))
    read_log = None
    if guest.machine.arch != NATIVE:

        def read_log(core: Path, log: Path, panic: str) -> tuple[str, list[str]]:
            return _panic_inside(guest, path, log, panic)

    return judge_file(path, guest.copy_from(path, workdir / "vmcore.copy"), workdir, panic=panic, read_log=read_log)


def judge_received(dumps: Path, workdir: Path, *, panic: str = ORDERED) -> DumpVerdict:
    """Read the newest dump that a server has received in ``dumps``, a directory of the controller.

    Never raises for a bad or missing dump: that is in ``problems``.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    workdir.chmod(0o700)
    found = sorted(dumps.glob("*/dump*"), key=lambda file: file.stat().st_mtime)
    if not found:
        return DumpVerdict("", 0, "", False, (f"no dump below {dumps}",))
    return judge_file(str(found[-1]), found[-1], workdir, panic=panic)


def judge_file(
    path: str, copy: Path, workdir: Path, *, panic: str = ORDERED, read_log: ReadLog | None = None
) -> DumpVerdict:
    """Read one dump on the controller; ``path`` is where it was found. A flattened one is rebuilt first.

    ``read_log`` says what its kernel log holds, instead of :func:`panic_of`.
    """
    size, problems = copy.stat().st_size, []
    if size == 0:
        return DumpVerdict(path, 0, "", False, (f"{path} is empty",))
    if "-incomplete" in path:
        problems.append(f"{path}: the collector did not finish it")
    with copy.open("rb") as file:
        flattened = file.read(len(FLATTENED)) == FLATTENED
    core = workdir / "vmcore" if flattened else copy  # a server's own file stays where it is
    if flattened:
        problems += _rebuild(copy, core)
    line = ""
    if not problems:
        line, unread = (read_log or panic_of)(core, workdir / "dmesg.txt", panic)
        problems += unread
    if not problems and not re.search(panic, line):
        problems.append(f"the dump's kernel log shows {line or 'no panic'!r}, not the ordered crash")
    return DumpVerdict(path, size, line, not problems, tuple(problems), None if problems else core)


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


def panic_of(core: Path, log: Path, panic: str = ORDERED) -> tuple[str, list[str]]:
    """(the line of the kernel log of ``core`` that matches, else its last panic line, else ""; problems)."""
    log.unlink(missing_ok=True)
    try:
        done = run(["makedumpfile", "--dump-dmesg", core, log], stage="makedumpfile --dump-dmesg",
                   timeout=MAKEDUMPFILE_SECONDS, check=False)  # fmt: skip
    except LabError as error:
        return "", [str(error)]
    if done.returncode or not log.exists():
        return "", [_unread(done)]
    return _panic_in(log, panic), []


def _panic_inside(guest: Guest, path: str, log: Path, panic: str) -> tuple[str, list[str]]:
    """What :func:`panic_of` says of the guest's dump ``path``, by the guest's makedumpfile."""
    log.unlink(missing_ok=True)
    work = guest.read("mktemp -d /var/tmp/dump.XXXXXX")
    read = f"makedumpfile -R core < {shlex.quote(path)} && makedumpfile --dump-dmesg core log"
    bounded = f"cd {work} && timeout {INSIDE_SECONDS} sh -c {shlex.quote(read)}"
    try:
        done = guest.ssh(bounded, INSIDE_SECONDS + SSH_SECONDS, check=False)
        if done.returncode:
            return "", [f"in the guest: {_unread(done)}"]
        guest.copy_from(f"{work}/log", log)
    finally:
        guest.ssh(["rm", "-r", work])
    return _panic_in(log, panic), []


def _unread(done: subprocess.CompletedProcess[str]) -> str:
    return f"--dump-dmesg failed ({done.returncode}): {(done.stdout + done.stderr).strip()[-300:]}"


def _panic_in(log: Path, panic: str) -> str:
    lines = log.read_text(errors="replace").splitlines()
    fits = [text for text in lines if re.search(panic, text)]
    panics = [text[text.index(ANY_PANIC) :] for text in lines if ANY_PANIC in text]
    found = [text[text.index(ANY_PANIC) :] if ANY_PANIC in text else text for text in fits] or panics
    return found[-1].strip() if found else ""


def _panic_position(lines: Sequence[str]) -> int | None:
    return next((i for i, text in enumerate(lines) if ANY_PANIC in text), None)


def _after_panic(lines: Sequence[str], pattern: re.Pattern[str]) -> str:
    start = _panic_position(lines)
    for text in lines[start + 1 :] if start is not None else ():
        match = pattern.search(text)
        if match:
            return match[1].strip()
    return ""
