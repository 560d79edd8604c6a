# SPDX-License-Identifier: Apache-2.0
"""A host that Ansible really changes, and that is not this machine: its /etc, /var/lib, /boot and kernel values are others.

The inventory's Python is a script that starts the real one in a mount namespace of its own. It needs root and unshare(1).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from orchestrator.documents.plan import Change, HostPlan
from orchestrator.fleet.collect import from_hosts
from orchestrator.fleet.runner import Whom
from orchestrator.knowledge.load import knowledge
from orchestrator.planning.files import write_plan
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline
from orchestrator.planning.plan import seal
from orchestrator.policy.load import Policy, default_path, load
from tests.sshd import Sshd

ROOT = Path(__file__).parents[2]
PLAYBOOKS = ROOT / "playbooks"
DEFAULTS, SYSCTL, PANIC = (
    "/etc/default/kdump-tools",
    "/etc/sysctl.d/60-kdump-orchestrator.conf",
    "/proc/sys/kernel/panic",
)
BEFORE = 'USE_KDUMP=1\nKDUMP_COREDIR="/var/crash"\nFTP_PASSWORD=hunter2-canary\n'
KEPT = ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "localtime", "os-release", "alternatives")

ENTER = """#!/bin/sh
# The real Python, on the simulated host.
exec unshare --mount sh -c '
set -e
mount --bind {tree}/etc /etc
mount --bind {tree}/boot /boot
mount --bind {tree}/var/lib /var/lib
mount --bind {tree}{panic} {panic}
mount --bind {tree}/sys/kernel /sys/kernel
exec "$@"' sh {python} "$@"
"""


@cache
def possible() -> str:
    """Why there can be no such host here, or nothing."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return "a mount namespace needs root and unshare"
    done = subprocess.run(["unshare", "--mount", "mount", "--bind", "/etc", "/etc"], capture_output=True)
    return "" if done.returncode == 0 else "no mount namespace can be made here"


@cache
def policy() -> Policy:
    """The shipped default."""
    return load(default_path(), knowledge())


class Simulated:
    """The host, its inventory file and a plan for it."""

    def __init__(self, folder: Path, name: str = "web1") -> None:
        self.folder, self.tree, self.name = folder, folder / "tree", name
        for path in (
            "etc/default",
            "etc/sysctl.d",
            "etc/systemd/system",
            "boot",
            "var/lib/dpkg",
            "proc/sys/kernel",
            "sys/kernel",
        ):
            (self.tree / path).mkdir(parents=True)
        for entry in KEPT:
            real = Path("/etc") / entry
            if real.is_dir():
                shutil.copytree(real, self.tree / "etc" / entry, symlinks=True)
            elif real.exists():
                shutil.copy(real, self.tree / "etc" / entry)
        (self.tree / "var/lib/dpkg/status").write_text("Package: kdump-tools\nStatus: install ok installed\n")
        self.put(DEFAULTS, BEFORE)
        self.put(PANIC, "0\n")
        self.crash_kernel(reserved=256 << 20, loaded=True)
        enter = folder / "python3"
        enter.write_text(ENTER.format(tree=self.tree, panic=PANIC, python=sys.executable))
        enter.chmod(0o755)
        self.python = enter
        self.inventory = folder / "inventory.ini"
        self.inventory.write_text(f"{name} ansible_connection=local ansible_python_interpreter={enter}\n")

    def behind(self, sshd: Sshd) -> None:
        """From now on it is reached through that sshd."""
        known = sshd.known_hosts(self.folder / "known_hosts")
        self.inventory.write_text(
            f"{self.name} ansible_host=127.0.0.1 ansible_port={sshd.port} ansible_user={sshd.user}"
            f" ansible_ssh_private_key_file={sshd.key} ansible_python_interpreter={self.python}"
            f" ansible_ssh_common_args='-F none -o UserKnownHostsFile={known}'\n"
        )

    def put(self, path: str, text: str) -> None:
        (self.tree / path[1:]).write_text(text)

    def get(self, path: str) -> str | None:
        file = self.tree / path[1:]
        return file.read_text() if file.exists() else None

    def crash_kernel(self, *, reserved: int, loaded: bool) -> None:
        """What the kernel says of its crash kernel slot; ``reserved`` in bytes."""
        self.put("/sys/kernel/kexec_crash_size", f"{reserved}\n")
        self.put("/sys/kernel/kexec_crash_loaded", f"{int(loaded)}\n")

    def picture(self) -> dict[str, tuple[object, ...]]:
        """Everything on the host, to the nanosecond."""
        out: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.tree.rglob("*")):
            info = path.lstat()
            text = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            out[str(path)] = (info.st_mode, info.st_size if text else 0, info.st_mtime_ns, text)
        return out

    def fingerprint(self) -> str:
        """What a plan made of this host at this moment would hold of it."""
        pipeline = Pipeline(policy(), knowledge())
        (facts,) = from_hosts(Whom((str(self.inventory),)), pipeline.targets()).facts
        return fingerprint(facts, pipeline.judge(facts).platform)

    def plan(self, **more: object) -> Path:
        """A plan with a new file, an edited one and a kernel value, sealed as `kdo plan` does it."""
        text = "kernel.panic = 10\n"
        steps = [
            {"op": "assign", "path": DEFAULTS, "assignments": [["KDUMP_CMDLINE_APPEND", "reset_devices nr_cpus=1"]],
             "before_sha256": hashlib.sha256(BEFORE.encode()).hexdigest(), "after_sha256": None},
            {"op": "write", "path": SYSCTL, "text": text, "mode": "0644", "before_sha256": None},
            {"op": "knob", "path": PANIC, "value": "10", "before": "0"},
        ]  # fmt: skip
        expect = [{"kind": "value", "path": PANIC, "value": "10"}]
        host = {"host": self.name, "fingerprint": "0" * 64, "status": "changes", "platform": "x86_64 kvm guest", "rule": "é 'x' {{ y }}",
                "strategy": "kdump_reset", "changes": [Change(kind="file", what="", why="", step=s) for s in steps],
                "expect": expect, "family": "debian", **more}  # fmt: skip
        path = self.folder / "plan.json"
        write_plan(path, seal(policy(), [HostPlan(**host)]))
        return path

    def play(self, playbook: str | Path, *words: str, cwd: Path | None = None, **env: str) -> Played:
        """ansible-playbook as somebody types it, without any help of kdo."""
        return play(PLAYBOOKS / playbook, "-i", str(self.inventory), *words, cwd=cwd or self.folder, **env)


class Played:
    """What came of it: ``code``, ``text``, and each host's line of the recap."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.text = done.returncode, done.stdout + done.stderr
        self.recap: dict[str, dict[str, int]] = {}
        for line in self.text.partition("PLAY RECAP")[2].splitlines()[1:]:
            name, _, rest = line.partition(":")
            if "ok=" in rest:
                self.recap[name.strip()] = {k: int(v) for k, v in (word.split("=") for word in rest.split())}

    def changed(self, host: str = "web1") -> int:
        return self.recap[host]["changed"]


def play(playbook: str | Path, *words: str, cwd: Path, **env: str) -> Played:
    own = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    own |= {"HOME": str(cwd), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8", "ANSIBLE_PIPELINING": "1", **env}
    own.setdefault("ANSIBLE_SSH_ARGS", "-o ControlMaster=no")  # a socket's path may be no longer than 107 characters
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, str(playbook), *words], cwd=cwd, env=own, capture_output=True, text=True, timeout=300
    )
    return Played(done)


def facts_in(folder: Path) -> dict[str, dict]:
    """The facts that playbooks/detect.yml has kept."""
    return {p.stem: json.loads(p.read_text()) for p in folder.glob("*.json")}
