# SPDX-License-Identifier: Apache-2.0
"""One disposable guest: an overlay on an image, a QEMU process, its console, and ssh with host key checking on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from orchestrator.lab import treehash
from orchestrator.lab.aptrepo import guest_forward
from orchestrator.lab.arches import ARCHES, NATIVE
from orchestrator.lab.console import Console, Line
from orchestrator.lab.layout import ARGUMENTS, DISK, EFI_VARIABLES, HOST_KEY, INITRD, KERNEL, private_key
from orchestrator.lab.leash import Leash
from orchestrator.lab.process import LabError, default_cache, run
from orchestrator.lab.qmp import Qmp
from orchestrator.lab.spec import ImageSpec

# Deadlines in seconds: ten times what an idle machine takes, because a busy one takes five times as long.
BOOT_SECONDS: Final = 300
CRASH_SECONDS: Final = 300
SSH_SECONDS: Final = 120
START_TRIES: Final = 3  # another process may take the free port before QEMU does


@dataclass(frozen=True)
class Machine:
    """The emulated hardware; ``apt_repository`` is a directory that the guest sees as an apt repository.

    ``arch`` is the kernel's name of the architecture, ``cpu`` QEMU's of the processor ("": what suits the architecture).
    """

    memory_mb: int = 1024
    cpus: int = 1
    cpu: str = ""
    apt_repository: Path | None = None
    forwards: tuple[str, ...] = ()  # values of QEMU's guestfwd=, see orchestrator.lab.target
    extra: tuple[str, ...] = field(default=())  # further QEMU arguments, e.g. ("-smbios", "type=1,product=…")
    arch: str = NATIVE

    @classmethod
    def of(cls, spec: ImageSpec) -> Machine:
        """Hardware that suits the guests of ``spec``."""
        return cls(memory_mb=spec.memory_mb, cpus=spec.cpus, arch=spec.arch)


class Guest:
    """A guest in the directory ``home``; a context manager that starts it and always ends its process.

    Sockets live in a short temporary directory (a UNIX socket's path has at most 107 bytes); disk, logs, known_hosts
    and inventory in ``home``. Only 127.0.0.1 is listened on, and the guest itself reaches nothing outside.
    """

    def __init__(self, image: Path, home: Path, *, name: str = "guest", machine: Machine | None = None,
                 cache: Path | None = None) -> None:  # fmt: skip
        self.image, self.home, self.name = image, home, name
        self.machine = machine or Machine()
        self.key = private_key(cache or default_cache())
        self.disk = home / DISK
        self.variables = home / EFI_VARIABLES  # kept from start to start, as the board keeps them
        self.known_hosts = home / "known_hosts"
        self.port = 0
        self.boots = 0
        self.last_events: list[dict[str, Any]] = []  # QMP events of the run that ended last
        arguments = image.parent / ARGUMENTS
        # The kernel's arguments at the next start, if the disk has no boot loader: whoever sets it plays that
        self.append = arguments.read_text(encoding="utf-8").strip() if arguments.is_file() else ""
        home.mkdir(parents=True, exist_ok=True)
        self.console = Console(home / "console.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        self._qmp: Qmp | None = None
        self._sockets: Path | None = None

    # ---- life

    def start(self) -> Guest:
        """Make the overlay (first time only) and start QEMU; returns at once, use :meth:`wait_ssh` next."""
        if self.alive():
            raise LabError("it already runs", where=f"start {self.name}")
        if not self.disk.exists():
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.image.resolve(), "-F", "qcow2", self.disk],
                stage=f"make the overlay of {self.name}", timeout=60)  # fmt: skip
        if (self.image.parent / EFI_VARIABLES).is_file() and not self.variables.exists():
            shutil.copyfile(self.image.parent / EFI_VARIABLES, self.variables)
        first = self.port == 0
        for attempt in range(1, START_TRIES + 1):
            if first:
                self.port = free_port()
            try:
                self._launch()
                break
            except LabError:
                self.stop()
                if not first or attempt == START_TRIES:
                    raise
        host_key = (self.image.parent / HOST_KEY).read_text(encoding="utf-8").split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {' '.join(host_key)}\n", encoding="utf-8")
        self.boots += 1
        return self

    def stop(self) -> None:
        """End this guest's QEMU, whatever state it is in, and remove its sockets; harmless when it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._collect()

    def alive(self) -> bool:
        """Whether this guest's QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def wait_reset(self, deadline: float = CRASH_SECONDS) -> float:
        """Wait until the guest resets or powers off, which ends QEMU; returns the seconds it took."""
        started = time.monotonic()
        if self._process is None:
            raise LabError("it was not started", where=f"wait for reset of {self.name}")
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"no reset within {deadline:.0f} s", where=f"wait for reset of {self.name}", why=self.console.tail()
            ) from error
        self._collect()
        return time.monotonic() - started

    @property
    def ended(self) -> str:
        """How the run that ended last did: ``reset``, ``shutdown``, ``panicked`` or ``unknown``.

        ``panicked``: the guest told the hypervisor that its kernel died, and was stopped for good. ``unknown``: QEMU was
        ended from outside, or the first run has not ended.
        """
        return how_ended(self.last_events)

    def restart(self, deadline: float = CRASH_SECONDS) -> None:
        """Start again on the same disk after a reset (waited for): quicker under emulation than a reset in one QEMU."""
        self.wait_reset(deadline)
        self.start()

    def reboot(self, deadline: float = BOOT_SECONDS) -> float:
        """Reboot in an orderly way and wait for ssh in a new boot; returns the seconds from order to ssh."""
        started = time.monotonic()
        before = self.boot_id()
        self.ssh("nohup sh -c 'sleep 0.3; systemctl reboot' >/dev/null 2>&1 &")
        self.restart(deadline)
        self.wait_ssh(deadline)
        if self.boot_id() == before:
            raise LabError("the boot id is still the same", where=f"reboot {self.name}", why=self.console.tail())
        return time.monotonic() - started

    def crash(self) -> int:
        """Order a kernel crash (sysrq c) and return the console position just before it; does not wait for it."""
        mark = self.console.mark()
        self.ssh("sync; nohup sh -c 'sleep 0.3; echo c > /proc/sysrq-trigger' >/dev/null 2>&1 &")
        return mark

    def __enter__(self) -> Guest:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.stop()

    # ---- talking to it

    def wait_console(self, pattern: str, deadline: float, *, since: int = 0) -> Line:
        """First console line from position ``since`` that matches; raises LabError after ``deadline`` seconds."""
        return self.console.wait(
            pattern, deadline=deadline, since=since, stage=f"{self.name}: wait for {pattern!r}", alive=self.alive
        )

    def wait_ssh(self, deadline: float = BOOT_SECONDS) -> float:
        """Wait until a command runs over ssh; returns the seconds it took.

        A refused key or a changed host key is reported at once: waiting does not mend it.
        """
        started = time.monotonic()
        stage, last = f"wait for ssh of {self.name} (boot {self.boots})", ""
        while time.monotonic() < started + deadline:
            if not self.alive():
                raise LabError("the guest ended first", where=stage, why=f"{self.console.tail()}\n{self._errors()}")
            if _banner(self.port):
                done = self._ssh_once("true", timeout=30)
                if done is not None and done.returncode == 0:
                    return time.monotonic() - started
                last = done.stderr.strip() if done is not None else "ssh: no answer within 30 s"
                if "Host key verification failed" in last or "Permission denied" in last:
                    break
            time.sleep(0.25)
        raise LabError(
            f"no ssh after {time.monotonic() - started:.0f} s", where=stage, why=f"{self.console.tail()}\n{last}"
        )

    def ssh(self, command: str | Sequence[str], timeout: float = SSH_SECONDS, *, check: bool = True,
            stdin: str | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command in the guest as root: a list is quoted word by word, a text goes to its shell as it is."""
        text = command if isinstance(command, str) else shlex.join(command)
        return run([*self._ssh_argv(), text], stage=f"ssh {self.name}: {text[:80]}", timeout=timeout, check=check,
                   stdin=stdin)  # fmt: skip

    def read(self, command: str | Sequence[str], timeout: float = SSH_SECONDS) -> str:
        """Standard output of a command in the guest, stripped."""
        return self.ssh(command, timeout).stdout.strip()

    def copy_from(self, remote: str, local: Path, timeout: float = 300) -> Path:
        """Copy a file of the guest to ``local`` and return that."""
        run(["scp", "-q", *self._options("-P"), f"root@127.0.0.1:{remote}", local],
            stage=f"copy {remote} from {self.name}", timeout=timeout)  # fmt: skip
        return local

    def copy_to(self, local: Path, remote: str, timeout: float = 300) -> None:
        """Copy a file into the guest."""
        run(["scp", "-q", *self._options("-P"), local, f"root@127.0.0.1:{remote}"],
            stage=f"copy {local} to {self.name}", timeout=timeout)  # fmt: skip

    def boot_id(self) -> str:
        """The kernel's random id of this boot."""
        return self.read("cat /proc/sys/kernel/random/boot_id")

    def tree_hash(self, timeout: float = 600) -> treehash.Listing:
        """State of every file in the guest, see :mod:`orchestrator.lab.treehash`."""
        source = Path(treehash.__file__).read_text(encoding="utf-8")
        listing: treehash.Listing = json.loads(self.ssh("exec python3 -B -", timeout, stdin=source).stdout)
        return listing

    def qmp(self) -> Qmp:
        """The monitor connection of the running QEMU."""
        if self._qmp is None:
            raise LabError("it does not run", where=f"QMP of {self.name}")
        return self._qmp

    def ansible_inventory(self, path: Path | None = None) -> Path:
        """Write an INI inventory naming this guest (default: ``home/inventory.ini``) and return its path."""
        path = path or self.home / "inventory.ini"
        path.write_text(f"{self.inventory_line()}\n", encoding="utf-8")
        return path

    def inventory_line(self) -> str:
        """One INI inventory line, for inventories of several guests."""
        common = f"-o UserKnownHostsFile={self.known_hosts.resolve()} -o StrictHostKeyChecking=yes"
        return (
            f"{self.name} ansible_host=127.0.0.1 ansible_port={self.port} ansible_user=root "
            f"ansible_ssh_private_key_file={self.key.resolve()} ansible_python_interpreter=/usr/bin/python3 "
            f"ansible_ssh_common_args='{common}'"
        )

    # ---- inside

    def _launch(self) -> None:
        self._sockets = Path(tempfile.mkdtemp(prefix="kdo-lab-"))
        errors = (self.home / "qemu.log").open("ab")
        argv = self._argv(self._sockets)
        (self.home / "qemu.cmd").write_text(shlex.join(argv) + "\n", encoding="utf-8")
        try:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        except FileNotFoundError as error:
            raise LabError("QEMU is not installed", where=f"start {self.name}",
                           fix="run orchestrator.lab.requirements.install()") from error  # fmt: skip
        finally:
            errors.close()
        self._leash = Leash(self._process.pid)
        try:
            self.console.attach(self._sockets / "console")
            self._qmp = Qmp(self._sockets / "qmp")
        except LabError as error:
            raise LabError("QEMU did not start", where=f"start {self.name}", why=self._errors()) from error

    def _argv(self, sockets: Path) -> list[str]:
        arch = ARCHES[self.machine.arch]
        network = f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        if self.machine.apt_repository is not None:
            network += f",guestfwd={guest_forward(self.machine.apt_repository)}"
        network += "".join(f",guestfwd={forward}" for forward in self.machine.forwards)
        return [
            arch.qemu, "-name", self.name, "-machine", arch.board,
            "-accel", "tcg,thread=multi,tb-size=256", "-cpu", self.machine.cpu or arch.cpu,
            "-smp", str(self.machine.cpus), "-m", str(self.machine.memory_mb),
            "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
            "-chardev", f"socket,id=s0,path={sockets}/console,server=on,wait=off", *arch.serial,
            "-qmp", f"unix:{sockets}/qmp,server=on,wait=off",
            "-drive", f"if=none,id=d0,file={_escape(self.disk)},format=qcow2,cache=unsafe,discard=unmap",
            "-device", f"{arch.disk},drive=d0",
            "-netdev", network, "-device", f"{arch.network},netdev=n0",
            *self._firmware(), *self._started(), *self.machine.extra,
        ]  # fmt: skip

    def _firmware(self) -> list[str]:
        """UEFI with this guest's own variables, for an image that brings some; else what QEMU has for the board."""
        firmware = ARCHES[self.machine.arch].firmware
        if firmware is None or not self.variables.exists():
            return []
        return [
            "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={firmware.code}",
            "-drive", f"if=pflash,unit=1,format=raw,file={_escape(self.variables)}",
        ]  # fmt: skip

    def _started(self) -> list[str]:
        """What QEMU itself starts: the kernel that lies beside the disk, or a program that finds the boot loader."""
        kernel, initrd = (self.image.parent / name for name in (KERNEL, INITRD))
        if not kernel.is_file():
            return list(ARCHES[self.machine.arch].boot_program)
        return ["-kernel", os.fspath(kernel), "-initrd", os.fspath(initrd), "-append", self.append]

    def _collect(self) -> None:
        """Keep what an ended QEMU left (console, events, exit) and forget the process."""
        if self._qmp is not None:
            self.last_events = self._qmp.drain()
            self._qmp.close()
            self._qmp = None
        self.console.detach()
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            if self._leash is not None:
                self._leash.release()
                self._leash = None
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None

    def _errors(self) -> str:
        log = self.home / "qemu.log"
        return log.read_text(errors="replace")[-800:] if log.exists() else ""

    def _options(self, port_flag: str) -> list[str]:
        settings = {
            "UserKnownHostsFile": os.fspath(self.known_hosts), "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes", "IdentitiesOnly": "yes", "BatchMode": "yes", "ConnectTimeout": "20",
            "ServerAliveInterval": "5", "ServerAliveCountMax": "12", "LogLevel": "ERROR",
        }  # fmt: skip
        pairs = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["-F", "none", "-i", os.fspath(self.key), port_flag, str(self.port), *pairs]

    def _ssh_argv(self) -> list[str]:
        return ["ssh", *self._options("-p"), "root@127.0.0.1", "--"]

    def _ssh_once(self, command: str, timeout: float) -> subprocess.CompletedProcess[str] | None:
        try:
            return run([*self._ssh_argv(), command], stage="ssh", timeout=timeout, check=False)
        except LabError:
            return None


def _escape(path: Path) -> str:
    """A path inside a QEMU option list, where a comma would end the value."""
    return os.fspath(path).replace(",", ",,")


def how_ended(events: Sequence[dict[str, Any]]) -> str:
    """What the QMP events of a run say of its end, see :attr:`Guest.ended`."""
    if any(event["event"] == "GUEST_PANICKED" for event in events):
        return "panicked"
    reasons = {event.get("data", {}).get("reason") for event in events if event["event"] in ("RESET", "SHUTDOWN")}
    if "guest-reset" in reasons:
        return "reset"
    return "shutdown" if "guest-shutdown" in reasons else "unknown"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _banner(port: int) -> bool:
    """Whether an ssh server answers; QEMU itself accepts the connection long before the guest can."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as probe:
            probe.settimeout(10)
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False
