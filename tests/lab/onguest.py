# SPDX-License-Identifier: Apache-2.0
"""kdo on a guest: this environment's own packages, for a Python of the same version. Guests have no network to install from."""

from __future__ import annotations

import importlib.metadata
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from orchestrator.lab.guest import Guest

ROOT = Path(__file__).parents[2]


def distributions(wanted: str) -> dict[str, importlib.metadata.Distribution]:
    """Everything that a requirement (``NAME[EXTRA]``) needs, itself included: name → what is installed here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    done: set[str] = set()

    def walk(requirement: Requirement) -> None:
        if str(requirement) in done:
            return
        done.add(str(requirement))
        dist = importlib.metadata.distribution(requirement.name)
        found[str(dist.metadata["Name"]).lower()] = dist
        for text in dist.requires or []:
            need = Requirement(text)
            extras = requirement.extras or {""}
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                walk(need)

    walk(Requirement(wanted))
    return found


def _files(wanted: str) -> Iterator[tuple[Path, str]]:
    """Folder and name of every file that is needed, without what other tools of these packages need."""
    for name, dist in distributions(wanted).items():
        if name == "kdump-orchestrator":
            continue
        for file in dist.files or ():
            if file.parts[0] != ".." and "__pycache__" not in file.parts and file.parts[0] != "ansible_test":
                yield Path(str(dist.locate_file(""))), str(file)


def install_kdo(guest: Guest, extra: str = "") -> None:
    """Put kdo and what it needs on the guest, with Ansible's programs; ``extra``: an extra of its own."""
    wanted = f"kdump-orchestrator[{extra}]" if extra else "kdump-orchestrator"
    folders: dict[Path, list[str]] = {}
    for folder, name in _files(wanted):
        folders.setdefault(folder, []).append(name)
    for folder, names in folders.items():
        _send(guest, ["tar", "-C", str(folder), "-c", "-T", "-"], "/opt/site", "\n".join(names))
    tree = ["tar", "-C", str(ROOT), "-c", "--exclude=__pycache__", "orchestrator", "policies", "playbooks", "schemas"]
    _send(guest, tree, "/opt/kdo")
    guest.ssh(
        "printf '#!/bin/sh\\nPYTHONPATH=/opt/kdo:/opt/site exec python3 -B -m orchestrator \"$@\"\\n' > /usr/local/bin/kdo; "
        'for t in playbook inventory config; do printf \'#!/bin/sh\\nPYTHONPATH=/opt/site exec python3 -B -m ansible "%s" "$@"\\n\' $t'
        " > /usr/local/bin/ansible-$t; done; chmod 755 /usr/local/bin/*"
    )


def _send(guest: Guest, pack: list[str], where: str, names: str = "") -> None:
    unpack = shlex.join([*map(str, guest._ssh_argv()), f"mkdir -p {where} && tar -C {where} -x"])
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(pack)} | {unpack}"],
        input=names,
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def same_python(guest: Guest) -> bool:
    """Whether compiled packages of this Python can be used there."""
    version = guest.read("python3 -c 'import sys; print(*sys.version_info[:2])'").split()
    return [int(x) for x in version] == list(sys.version_info[:2])
