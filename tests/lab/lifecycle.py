# SPDX-License-Identifier: Apache-2.0
"""The whole life of a host under kdump-orchestrator, on a real guest, with the commands that a user types.

:func:`life_cycle` is the one function behind the tests of boot stacks, kernels and targets; the rest are its parts, for
tests that need them one by one. With ``KDO_LAB_RESULTS=FILE`` each life cycle appends what became of it to FILE, one
JSON object per line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.lab.guest import Guest, Machine
from orchestrator.lab.images import ImageSpec, build_image
from orchestrator.lab.resets import Resets
from orchestrator.lab.treehash import diff_trees
from orchestrator.lab.vmcore import PANIC, Capture, DumpVerdict, capture_problems, judge_vmcore, wait_capture
from orchestrator.planning.steps import NO_TRIAL

RESULTS = "KDO_LAB_RESULTS"
#: Seconds for one command: more than it gives a host for its reboot, so that what it says of a host that hangs is seen.
WAIT = 1500.0
# What configuration and programs live in. A boot writes elsewhere all the time.
CONFIGURED = ("/etc/", "/boot/", "/usr/", "/bin", "/sbin", "/lib", "/root/", "/opt", "/srv", "/home")
# The boot loader itself writes these when it boots: a seed, and GRUB's choice, which is looked at by its meaning.
WRITTEN_BY_BOOTING = ("/boot/efi/loader/random-seed", "/boot/grub/grubenv")
GRUB_CHOICE = "grub-editenv /boot/grub/grubenv list 2>/dev/null | grep -v '^next_entry=$' || true"


class Kdo:
    """Runs `kdo` against one guest, as a user would, and keeps the seconds of each verb."""

    def __init__(self, guest: Guest, home: Path) -> None:
        self.guest, self.home = guest, home
        self.inventory = guest.ansible_inventory()
        self.seconds: list[tuple[str, float]] = []

    def __call__(self, *arguments: str, code: int = 0, timeout: float = WAIT) -> str:
        began = time.monotonic()
        command = [sys.executable, "-m", "orchestrator", *arguments[:1], "-i", str(self.inventory), *arguments[1:]]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=timeout, cwd=self.home, check=False
            )
        except subprocess.TimeoutExpired as e:
            raise AssertionError(
                f"{arguments}: no end after {timeout} s\n{e.stderr!r}\n{self.guest.console.tail()}"
            ) from e
        self.seconds.append((" ".join(arguments[:3]), round(time.monotonic() - began, 1)))
        assert result.returncode == code, (
            f"{arguments}: exit {result.returncode}\n{result.stdout[-6000:]}\n{result.stderr[-3000:]}"
        )
        return result.stdout

    def json(self, *arguments: str, code: int = 0, timeout: float = WAIT) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self(*arguments, "--format", "json", code=code, timeout=timeout))
        return document


def crash_and_judge(guest: Guest, workdir: Path) -> Capture:
    """Crash for real, wait for the capture kernel and the next boot, read the vmcore on the controller."""
    capture = crash(guest)
    read_vmcore(guest, workdir)
    return capture


def crash(guest: Guest) -> Capture:
    """Crash for real, wait until the capture kernel has saved the dump and the guest is up again."""
    mark = guest.crash()
    capture = wait_capture(guest, mark, 600)
    assert capture.saved, capture_problems(guest.console.texts(mark)) or guest.console.tail()
    guest.start()
    guest.wait_ssh(600)
    return capture


def read_vmcore(guest: Guest, workdir: Path) -> DumpVerdict:
    """The newest dump, complete and with the ordered panic, as makedumpfile on the controller reads it."""
    verdict = judge_vmcore(guest, workdir)
    assert verdict.complete, verdict.problems
    assert verdict.panic == PANIC and verdict.size > 1 << 20
    return verdict


def check_capture(capture: Capture) -> None:
    """The capture kernel's own command line: what makes it a capture kernel, once each, and no reservation."""
    words = capture.command_line.split()
    assert capture.cpus == 1
    for argument in ("nr_cpus=1", "reset_devices", "panic=10", "systemd.unit=kdump-tools-dump.service"):
        assert words.count(argument) == 1, capture.command_line
    assert not [w for w in words if w.startswith("crashkernel=")]


def configured(listing: dict[str, Any]) -> dict[str, Any]:
    """What configuration and programs live in, without times: a boot touches directories, an undo recreates files."""
    files = listing["files"].items()
    return {path: [*entry[:4], *entry[6:]] for path, entry in files if path.startswith(CONFIGURED)}


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Path → (was, is) of what differs in :func:`configured`, but for what a boot loader writes by itself."""
    was, now = configured(before), configured(after)
    paths = (was.keys() | now.keys()) - set(WRITTEN_BY_BOOTING)
    return {path: (was.get(path), now.get(path)) for path in paths if was.get(path) != now.get(path)}


@dataclass
class Record:
    """What became of one life cycle; ``stages`` are seconds in the order in which they were reached."""

    name: str
    family: str
    system: str
    kernel: str
    boot: str
    target: str
    trial: bool = False
    strategy: str = ""
    stages: dict[str, float] = field(default_factory=dict)
    outcome: str = "unfinished"
    where: str = ""  # the stage that did not succeed
    error: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of one stage; the one that raises is noted as ``where``."""
        self.where, began = name, time.monotonic()
        try:
            yield
        finally:
            self.stages[name] = round(time.monotonic() - began, 1)

    def keep(self) -> None:
        """Append this record to the file that ``KDO_LAB_RESULTS`` names, if it does."""
        name = os.environ.get(RESULTS)
        if name:
            with open(name, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self)) + "\n")


def boot_stack(spec: ImageSpec) -> str:
    """A line for tables: boot loader, firmware, and what the root file system lies on."""
    words = [spec.boot.removesuffix("-efi"), "UEFI" if spec.uefi else "BIOS"]
    words += ["own /boot"] if spec.has_boot_partition else []
    words += [spec.storage] if spec.storage != "plain" else []
    words += [spec.initramfs] if spec.initramfs != "initramfs-tools" else []
    words += [f"{len(spec.kernels)} kernels"] if len(spec.kernels) > 1 else []
    return ", ".join(words)


def life_cycle(
    spec: ImageSpec,
    home: Path,
    *,
    target: str = "local",
    policy: Path | None = None,
    machine: Machine | None = None,
    prepare: Callable[[Guest], None] = lambda guest: None,
    while_set: Callable[[Guest], None] = lambda guest: None,
    judge: Callable[[Guest, Path], DumpVerdict] = read_vmcore,
) -> Record:
    """From an untouched guest to a vmcore that can be read, and back until nothing of it is left.

    plan, a dry run that leaves every file as it was, `apply --reboot` (with a trial boot where the plan says that one is
    possible), validate, a crash, the vmcore on the controller, rollback, the tree as it was, the old arguments again.

    ``target`` is a name for the record; ``policy`` is used instead of the shipped one; ``prepare`` runs in the
    untouched guest; ``while_set`` before the crash; ``judge`` finds the dump where the target put it.
    """
    record = Record(spec.title, "debian", spec.suite, "", boot_stack(spec), target)
    try:
        _live(spec, home, record, policy, machine, prepare, while_set, judge)
        record.outcome, record.where = "passed", ""
    except BaseException as error:
        record.outcome = "failed"
        record.error = str(error)[-4000:]
        raise
    finally:
        record.keep()
    return record


def _live(spec: ImageSpec, home: Path, record: Record, policy: Path | None, machine: Machine | None,
          prepare: Callable[[Guest], None], while_set: Callable[[Guest], None],
          judge: Callable[[Guest, Path], DumpVerdict]) -> None:  # fmt: skip
    with record.stage("image"):
        image = build_image(spec)
    machine = machine or Machine.of(spec)
    chosen = ("-p", str(policy)) if policy else ()
    name, path = spec.title.replace(".", "-"), home / "plan.json"
    with Guest(image, home / "guest", name=name, machine=machine) as guest:
        with record.stage("boot"):
            guest.wait_ssh(600)
        prepare(guest)
        record.kernel = guest.read("uname -r")
        arguments, choice = guest.read("cat /proc/cmdline"), guest.read(GRUB_CHOICE)
        assert "crashkernel=" not in arguments
        kdo, before = Kdo(guest, home), guest.tree_hash()
        with record.stage("plan"):
            (host,) = kdo.json("plan", *chosen, "-o", str(path), code=2)["hosts"]
        record.strategy = host["strategy"]
        record.trial = not [note for note in host["notes"] if NO_TRIAL in note]
        assert (host["status"], host["action"]) == ("changes", "reboot"), host
        how = ("--reboot",) if record.trial else ("--reboot", "--no-trial")
        with record.stage("dry run"):
            kdo("apply", str(path), *chosen, *how, "--check", code=2)
        assert diff_trees(before, guest.tree_hash()) == []

        with record.stage("apply"), Resets(guest):
            done = kdo.json("apply", str(path), *chosen, *how, "-y", timeout=1800)
        (outcome,) = done["hosts"]
        assert outcome["state"] == "committed" and outcome["rebooted"] and not outcome["error"], outcome
        assert done["pending_reboot"] == [] and done["validation"][0]["status"] == "pass", done["validation"]
        guest.wait_ssh(600)
        assert guest.read("cat /proc/cmdline").count("crashkernel=") == 1
        with record.stage("validate"):
            kdo("validate", *chosen)
        assert kdo.json("plan", *chosen)["hosts"][0]["status"] == "none"
        while_set(guest)

        with record.stage("crash"):
            check_capture(crash(guest))
        with record.stage("vmcore"):
            judge(guest, home / "vmcore")
        # The boot after the crash was the default's: the arguments are there to stay.
        assert guest.read("cat /proc/cmdline").count("crashkernel=") == 1

        with record.stage("rollback"):
            (back,) = kdo.json("rollback", name, "-y")["hosts"]
        assert back["state"] == "rolled-back", back
        assert changed(before, guest.tree_hash()) == {}
        assert guest.read(GRUB_CHOICE) == choice
        assert kdo.json("rollback", name, "-y")["hosts"][0]["state"] == "nothing"
        with record.stage("reboot"):
            guest.reboot(600)
        assert guest.read("cat /proc/cmdline") == arguments
