# SPDX-License-Identifier: Apache-2.0
"""What this machine needs to be a controller, and whether it is there."""

from __future__ import annotations

import importlib.metadata
import os
import sys

from orchestrator.documents.base import Document
from orchestrator.errors import KdoError
from orchestrator.fleet.runner import located
from orchestrator.knowledge.load import knowledge
from orchestrator.policy.lint import require_sound
from orchestrator.policy.load import default_path, load
from orchestrator.resources import data_root, from_debian
from orchestrator.versions import compare


class Finding(Document, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    ok: bool
    seen: str
    fix: str = ""
    needed: bool = True


def _distribution(name: str, minimum: str) -> Finding:
    fix = f"{sys.executable} -m pip install '{name}>={minimum}'"
    if from_debian():
        fix = f"apt-get install {name if name == 'ansible-core' else f'python3-{name}'}"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(what=name, ok=False, seen="not installed", fix=fix)
    if version == "0.0.0":  # Debian's ansible-runner: made without its version
        return Finding(what=name, ok=True, seen="installed, does not say its version")
    return Finding(what=name, ok=compare(version, minimum) >= 0, seen=version, fix=fix)


def _command(name: str, package: str, why: str, needed: bool) -> Finding:
    found = located(name)
    return Finding(
        what=name,
        ok=found is not None,
        seen=found or f"not found ({why})",
        fix=f"apt-get install {package}",
        needed=needed,
    )


def _data() -> Finding:
    try:
        known = knowledge()
        require_sound(load(default_path(), known), known)
    except KdoError as e:
        return Finding(
            what="policies, knowledge, playbooks", ok=False, seen=str(e), fix="install kdump-orchestrator again"
        )
    return Finding(
        what="policies, knowledge, playbooks", ok=True, seen=f"{data_root()}, {len(known.rows)} platform rows"
    )


def examine(*, lab: bool) -> list[Finding]:
    """Everything, in the order in which it matters."""
    version = ".".join(str(x) for x in sys.version_info[:3])
    run = next((d for d in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm") if d and os.access(d, os.W_OK)), None)  # noqa: S108
    out = [
        Finding(what="Python", ok=sys.version_info >= (3, 11), seen=version, fix="install Python 3.11 or newer"),
        *(
            _distribution(n, v)
            for n, v in (
                ("ansible-core", "2.19"),
                ("ansible-runner", "2.4"),
                ("jsonschema", "4.19"),
                ("pyudev", "0.24"),
            )
        ),
        _command("ansible-playbook", "ansible-core", "hosts cannot be asked", True),
        _command("ssh", "openssh-client", "only this machine can be asked", False),
        _command("ssh-keygen", "openssh-client", "no signature can be checked: --require-signed", False),
        _data(),
        Finding(
            what="private run directory",
            ok=run is not None,
            seen=run or "none in memory",
            fix="mount a tmpfs on /dev/shm",
            needed=False,
        ),
        Finding(
            what="root's rights",
            ok=os.geteuid() == 0,
            seen=f"uid {os.geteuid()}",
            fix="use -b, or sudo, to see and change this machine",
            needed=False,
        ),
    ]
    if lab:
        from orchestrator.lab.requirements import missing  # noqa: PLC0415  (the lab is not needed otherwise)

        lacking = missing()
        seen = "lacks " + ", ".join(lacking) if lacking else "complete"
        out.append(Finding(what="lab", ok=not lacking, seen=seen, fix="apt-get install " + " ".join(lacking)))
    return out
