# SPDX-License-Identifier: Apache-2.0
"""Ansible on an execution node that is reached by SSH alone: ``ansible-runner transmit | ssh NODE ansible-runner worker | process``.

The node needs ansible-core and ansible-runner, and the keys of its site; of this tool it needs nothing. Playbooks, modules and
the part of the inventory that counts go through the stream into a private directory that the node's ansible-runner makes
and removes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import InvalidInput, KdoError
from orchestrator.resources import data_path

_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
_WORKER = "umask 077; exec ansible-runner worker"
#: Relative to the project directory, in which the node's Ansible runs.
ENVIRONMENT = {
    "ANSIBLE_LIBRARY": "playbooks/library",
    "ANSIBLE_MODULE_UTILS": "playbooks/module_utils",
    "ANSIBLE_PIPELINING": "True",
    "ANSIBLE_LOCAL_TEMP": "../tmp",
    "ANSIBLE_HOME": "../home",
    "ANSIBLE_SSH_CONTROL_PATH_DIR": "../cp",
    "ANSIBLE_RETRY_FILES_ENABLED": "False",
    "ANSIBLE_DEPRECATION_WARNINGS": "False",
    "ANSIBLE_NOCOLOR": "1",
}


def fill(run: Path, inventory: bytes) -> None:
    """Put what the node needs into the run directory: our playbooks with their modules, and an inventory of these hosts."""
    project = run / "project"
    for name in ("playbooks", "policies/knowledge"):
        shutil.copytree(data_path(name), project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (run / "inventory").mkdir(mode=0o700)
    (run / "inventory" / "hosts.json").write_bytes(inventory)


def play(
    run: Path, node: str, playbook: str, *, limit: str, variables: Mapping[str, Any], flags: str, mark: Mapping[str, str],
    handler: Callable[[dict[str, Any]], bool], stopped: Callable[[], bool],
) -> str:  # fmt: skip
    """Run a playbook of the filled run directory on the node; events go to the handler as they come. Returns what ssh said."""
    import ansible_runner  # noqa: PLC0415  (80 ms of import that only a run should pay)

    if node.startswith("-") or not node.strip():
        raise InvalidInput(f"{node!r} is no execution node", fix="give USER@HOST")
    said = tempfile.TemporaryFile()  # noqa: SIM115
    ssh = subprocess.Popen(
        [*_SSH, "--", node, _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said,
        env={**os.environ, **mark}, start_new_session=True,
    )  # fmt: skip
    assert ssh.stdin is not None and ssh.stdout is not None  # noqa: S101
    lost: list[Exception] = []
    events = 0

    def count(event: dict[str, Any]) -> bool:
        nonlocal events
        events += 1
        return handler(event)

    def send(pipe: IO[bytes]) -> None:
        try:
            ansible_runner.run(
                streamer="transmit", _output=pipe, private_data_dir=str(run), playbook=f"playbooks/kdo/{playbook}",
                limit=limit or None, extravars=dict(variables), envvars=dict(ENVIRONMENT), cmdline=flags,
                settings={"pexpect_timeout": 1}, suppress_env_files=True,
            )  # fmt: skip
        except (OSError, ValueError) as error:  # the node hung up: what it said is the better message
            lost.append(error)
        finally:
            try:
                pipe.close()
            except OSError as error:
                lost.append(error)

    def watch() -> None:
        while ssh.poll() is None and not over.wait(0.5):
            if stopped():
                ssh.send_signal(signal.SIGTERM)  # its worker loses its input and output, and ends

    over = threading.Event()
    sender = threading.Thread(target=send, args=(ssh.stdin,), daemon=True)
    watcher = threading.Thread(target=watch, daemon=True)
    sender.start()
    watcher.start()
    back = run / "back"
    back.mkdir(mode=0o700)
    try:
        ansible_runner.run(
            streamer="process", _input=ssh.stdout, private_data_dir=str(back), event_handler=count, quiet=True
        )
    except Exception as error:  # whatever a broken stream raises
        lost.append(error)
    finally:
        over.set()
        if ssh.poll() is None and stopped():
            ssh.terminate()
        code = ssh.wait()
        sender.join(5)
    said.seek(0)
    text = said.read()[-2000:].decode("utf-8", "replace").strip()
    said.close()
    if code and not events and not stopped():  # with events, the code is only that of a playbook with failed hosts
        missing = "not found" in text
        fix = (
            f"install ansible-core and ansible-runner on {node}"
            if missing
            else f"try: ssh {node} ansible-runner --version"
        )
        raise KdoError("the execution node did not do it", where=node, why=text or f"ssh ended with {code}", fix=fix)
    return text or "; ".join(str(e) for e in lost)
