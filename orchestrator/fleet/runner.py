# SPDX-License-Identifier: Apache-2.0
"""The one place that speaks to ansible-runner: a typed request in, what each host answered out.

ansible-runner leaves environment, variables and one file per event behind by default. Here the run directory is private
(0700), in memory where the machine has such a place, and deleted afterwards; events are taken from the handler and
never written.
"""

from __future__ import annotations

import configparser
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator.errors import InventoryError, KdoError
from orchestrator.fleet import remote
from orchestrator.resources import data_path

MARK = "KDO_RUN_MARK"  # every process of one run of Ansible has it in its environment

#: A host that goes down without a word (a reset, a panic, a cut cable) leaves a connection that nobody ever closes, and
#: ssh waits for it for ever. Last on ssh's command line: what the user's own arguments say comes first and counts.
ALIVE = "-o ServerAliveInterval=15 -o ServerAliveCountMax=4"

Progress = Callable[[str, str], None]  # (host, "ok" | "failed" | "unreachable")


@dataclass(frozen=True)
class Whom:
    """Which hosts a run is about. No inventory = this machine, under ``name`` and in ``groups``."""

    inventory: tuple[str, ...] = ()
    limit: str = ""
    forks: int = 20
    become: bool = False
    name: str = "localhost"  # of this machine, where there is no inventory
    groups: tuple[str, ...] = ()
    hosts_only: bytes = b""  # the part of the inventory that counts (inventory.subset); never shown, never stored
    via: str = ""  # an execution node (user@host): Ansible runs there, through SSH

    @property
    def local(self) -> bool:
        """This machine, without any inventory."""
        return not self.inventory and not self.hosts_only

    def __repr__(self) -> str:
        """Without the variables of hosts, which may hold secrets."""
        return f"Whom({', '.join(self.inventory) or 'this machine'}, limit={self.limit!r})"


@dataclass
class Answer:
    """What one host answered. ``status``: ok | failed | unreachable | silent."""

    host: str
    status: str = "silent"
    result: dict[str, Any] = field(default_factory=dict)
    message: str = ""


def _base_dir() -> str | None:
    """A place in memory for the run directory, if there is one."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):  # noqa: S108  (mkdtemp makes it private)
        if candidate and Path(candidate).is_dir() and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    return None


@contextmanager
def run_directory() -> Iterator[Path]:
    """A private directory that is gone afterwards, whatever happens."""
    path = Path(tempfile.mkdtemp(prefix="kdo-", dir=_base_dir()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def host_file_name(host: str) -> str:
    """Name of a host's file in the run directory: no inventory name can lead out of it."""
    return sha256(host.encode()).hexdigest()


def _home(run: Path) -> str:
    """A home for Ansible in the run directory, with what the user has installed linked into it.

    A dry run leaves no trace, not even an empty ~/.ansible.
    """
    home = run / "home"
    home.mkdir()
    for name in ("collections", "roles", "plugins"):
        installed = Path("~/.ansible").expanduser() / name
        if installed.is_dir():
            (home / name).symlink_to(installed)
    return str(home)


def located(name: str) -> str | None:
    """Where a program is: beside this Python, else in PATH.

    They are elsewhere than Python where packages were installed for one user, or where Python is the system's own.
    """
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def program(name: str) -> str:
    """Where one of Ansible's programs is. Raises :class:`KdoError` where it is nowhere."""
    found = located(name)
    if found is None:
        why = f"it is neither in {Path(sys.executable).parent} nor in PATH"
        raise KdoError(f"{name} cannot be found", why=why, fix="install ansible-core, or put its programs into PATH")
    return found


def environment(run: Path) -> dict[str, str]:
    """What Ansible gets besides the user's environment: our modules, pipelining, and nothing written outside ``run``."""
    env = os.environ
    library = [str(data_path("playbooks/library"))] + [x for x in (env.get("ANSIBLE_LIBRARY"),) if x]
    utils = [str(data_path("playbooks/module_utils"))] + [x for x in (env.get("ANSIBLE_MODULE_UTILS"),) if x]
    out = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)]),
        "ANSIBLE_LIBRARY": os.pathsep.join(library),
        "ANSIBLE_MODULE_UTILS": os.pathsep.join(utils),
        "ANSIBLE_PIPELINING": "True",
        "ANSIBLE_LOCAL_TEMP": str(run / "tmp"),
        "ANSIBLE_HOME": env.get("ANSIBLE_HOME") or _home(run),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(run / "cp"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_HOST_KEY_CHECKING": env.get("ANSIBLE_HOST_KEY_CHECKING", "True"),
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ANSIBLE_NOCOLOR": "1",
    }
    config = _config()
    if config is not None:
        out["ANSIBLE_CONFIG"] = str(config)  # ansible-runner changes the directory, the user's file must still count
    if "ANSIBLE_SSH_EXTRA_ARGS" not in env and _setting(config, "ssh_connection", "ssh_extra_args") is None:
        out["ANSIBLE_SSH_EXTRA_ARGS"] = ALIVE
    if "ANSIBLE_CALLBACK_PLUGINS" not in env:
        out["ANSIBLE_CALLBACK_PLUGINS"] = _callbacks(config, out["ANSIBLE_HOME"])
    return out


def _config() -> Path | None:
    """The configuration file that Ansible would take here, as a path that does not depend on the directory."""
    given = os.environ.get("ANSIBLE_CONFIG")
    here: list[Path] = []
    with suppress(OSError):  # a directory that this user may not look into, e.g. after su
        here = [] if Path().stat().st_mode & 0o002 else [Path("ansible.cfg")]  # Ansible takes none where all may write
    places = [Path(given)] if given else [*here, Path("~/.ansible.cfg").expanduser(), Path("/etc/ansible/ansible.cfg")]
    return next((p.resolve() for p in places if p.is_file()), None)


def _callbacks(config: Path | None, home: str) -> str:
    """Where the user's callback plugins (ARA and the like) are: as configured, or Ansible's own default.

    ansible-runner puts the place of its own into the environment, before which neither would count any more.
    """
    given = _setting(config, "defaults", "callback_plugins")
    if given is None or config is None:
        return f"{home}/plugins/callback:/usr/share/ansible/plugins/callback"
    paths = [p.strip().replace("{{CWD}}", str(Path.cwd())) for p in given.split(os.pathsep) if p.strip()]
    return os.pathsep.join(str(config.parent / Path(os.path.expandvars(p)).expanduser()) for p in paths)


def _setting(config: Path | None, section: str, key: str) -> str | None:
    """What the user's configuration says of a setting, if anything. A file that cannot be read is Ansible's to report."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(config or ())
    return parser.get(section, key, fallback=None)


def inventory_sources(whom: Whom, run: Path) -> list[str]:
    """What to give to Ansible with -i. Raises :class:`InventoryError` for a file that is not there."""
    if whom.hosts_only:
        path = run / "inventory.json"
        path.write_bytes(whom.hosts_only)
        return [str(path)]
    if whom.local:
        path = run / "inventory.json"
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        groups: dict[str, Any] = {group: {"hosts": {whom.name: {}}} for group in whom.groups}
        inventory = {"all": {"hosts": {whom.name: variables}, "children": groups}}
        path.write_text(json.dumps(inventory), encoding="utf-8")
        return [str(path)]
    out = []
    for item in whom.inventory:
        if item.endswith(",") or ("," in item and not Path(item).exists()):
            out.append(item)
        elif Path(item).exists():
            out.append(str(Path(item).resolve()))
        else:
            raise InventoryError(
                f"there is no inventory {item!r}",
                where=item,
                why="no such file or directory",
                fix="give a file, a directory or a list of hosts that ends with a comma, e.g. -i web1,",
            )
    return out


class _Collector:
    """Takes what is wanted from the stream of events and lets nothing be written."""

    def __init__(self, progress: Progress | None) -> None:
        self.answers: dict[str, Answer] = {}
        self.no_hosts = False
        self.progress = progress

    def __call__(self, event: dict[str, Any]) -> bool:
        kind = event.get("event", "")
        data = event.get("event_data") or {}
        if kind == "playbook_on_no_hosts_matched":
            self.no_hosts = True
        host = data.get("host")
        if not host:
            return False
        answer = self.answers.setdefault(host, Answer(host))
        if kind in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            result = data.get("res")
            answer.result = result if isinstance(result, dict) else {}
            answer.status = kind.removeprefix("runner_on_")
            if answer.status != "ok":
                answer.message = _message(answer.result)
            if self.progress is not None:
                self.progress(host, answer.status)
        return False


def _message(result: Mapping[str, Any]) -> str:
    parts = [str(result.get(k, "")).strip() for k in ("msg", "module_stderr", "stderr") if result.get(k)]
    text = " | ".join(dict.fromkeys(parts))
    return text[:600] or "no reason was given"


def end_marked(mark: str, grace: float = 3.0) -> int:
    """End every process of this user that carries ``NAME=value`` in its environment; returns how many there were.

    Ansible's workers lead sessions of their own (setsid), so a signal to the run's process group does not reach them.
    """
    wanted = mark.encode()
    count = 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace
        while found := _marked(wanted):
            count = max(count, len(found))
            for pid in found:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            if number == signal.SIGTERM and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            break
    return count


def _marked(wanted: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.stat().st_uid == os.getuid() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def complain(output: str) -> None:
    """Turn what Ansible printed before any host was asked into an error of the user's inventory."""
    lines = [x.strip() for x in output.splitlines() if x.strip()]
    errors = [x for x in lines if x.startswith(("ERROR", "[ERROR]", "fatal:"))] or lines[-3:]
    text = " ".join(errors)[:600]
    if "leaves us with no hosts" in output or "does not match" in output or "Could not match supplied host" in output:
        raise InventoryError("no host matches", why=text, fix="check --limit and the names in the inventory")
    if "inventory" in output.lower() or "parse" in output.lower():
        raise InventoryError("the inventory cannot be read", why=text, fix="try: ansible-inventory --list -i INVENTORY")
    raise KdoError("Ansible did not run", why=text or "it printed nothing", fix="kdo doctor")


def _play(
    run: Path, playbook: str, whom: Whom, limit: str, variables: Mapping[str, Any], flags: str, mark: Mapping[str, str],
    collector: _Collector, stopped: Callable[[], bool],
) -> str:  # fmt: skip
    """Run a playbook here. Returns what Ansible printed."""
    import ansible_runner  # noqa: PLC0415  (80 ms of import that only a run should pay)

    result = ansible_runner.run(
        private_data_dir=str(run),
        playbook=str(data_path(f"playbooks/kdo/{playbook}")),
        inventory=inventory_sources(whom, run),
        limit=limit or None,
        extravars=dict(variables),
        envvars={**environment(run), **mark},
        settings={"pexpect_timeout": 1},
        cmdline=flags,
        event_handler=collector,
        cancel_callback=stopped,
        suppress_env_files=True,
        quiet=True,
    )
    return str(result.stdout.read()) if result.stdout is not None else ""


def run_playbook(
    playbook: str,
    whom: Whom,
    *,
    variables: Mapping[str, Any] | None = None,
    host_files: Mapping[str, bytes] | None = None,
    hosts: Sequence[str] | None = None,
    check: bool = False,
    diff: bool = False,
    progress: Progress | None = None,
) -> dict[str, Answer]:
    """Run one of the shipped playbooks and return each host's last answer by inventory name.

    ``host_files`` are written to the run directory under :func:`host_file_name`; ``hosts`` restricts the run to these
    names. Raises :class:`InventoryError` when no host can be asked at all, :class:`KeyboardInterrupt` on Ctrl-C.
    """
    stopped = False

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    with run_directory() as run:
        files = run / "hosts"
        files.mkdir(mode=0o700)
        for host, content in (host_files or {}).items():
            (files / host_file_name(host)).write_bytes(content)
        limit = whom.limit
        if hosts is not None:
            names = run / "limit"
            names.write_text("\n".join(hosts) + "\n", encoding="utf-8")
            limit = f"@{names}"
        if whom.via:
            remote.fill(run, whom.hosts_only)
        collector = _Collector(progress)
        mark = f"{MARK}={secrets.token_hex(16)}"
        asked = (("--become", whom.become), ("--check", check), ("--diff", diff))
        flags = [f"--forks {max(1, whom.forks)}", *(flag for flag, wanted in asked if wanted)]
        main = threading.current_thread() is threading.main_thread()  # only there can signals be caught
        before = {n: signal.signal(n, on_interrupt) for n in (signal.SIGINT, signal.SIGTERM) if main}
        output = ""
        flag_text = " ".join(flags)
        try:
            if whom.via:
                output = remote.play(
                    run, whom.via, playbook, limit="@../limit" if hosts is not None else limit,
                    variables={"kdo_dir": "../../hosts", **(variables or {})}, flags=flag_text,
                    mark=dict([mark.split("=")]), handler=collector, stopped=lambda: stopped,
                )  # fmt: skip
            else:
                output = _play(run, playbook, whom, limit, {"kdo_dir": str(files), **(variables or {})}, flag_text,
                               dict([mark.split("=")]), collector, lambda: stopped)  # fmt: skip
        finally:
            end_marked(mark)
            for number, handler in before.items():
                signal.signal(number, handler)
        if stopped:
            raise KeyboardInterrupt
        if not collector.answers:
            if collector.no_hosts:
                raise InventoryError(
                    "no host matches", why="the inventory names no host for this", fix="check -i and --limit"
                )
            complain(output)
        for answer in collector.answers.values():
            if answer.status == "silent":
                answer.status, answer.message = "failed", "the host was asked but never answered"
        return collector.answers
