# SPDX-License-Identifier: Apache-2.0
"""The Ansible collection ``kdump_orchestrator.kdump``, from the same files that kdo runs: ``python -m orchestrator.collection FOLDER``.

What differs in a collection are names: modules by their full name, and imports of ``module_utils``. The tarball that
``ansible-galaxy collection build`` makes is written again with fixed times and order, so the same sources give the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from orchestrator import __version__
from orchestrator.errors import KdoError
from orchestrator.files import write_atomically
from orchestrator.resources import data_path

NAMESPACE, NAME = "kdump_orchestrator", "kdump"
FULL = f"{NAMESPACE}.{NAME}"
LOOKUP = "kdo_change"
#: Seconds since 1970 of every file in the tarball: the first moment that zip and tar can both say.
EPOCH = 315532800

_GALAXY = f"""---
namespace: {NAMESPACE}
name: {NAME}
version: {__version__}
readme: README.md
authors:
  - kdump-orchestrator contributors
description: Facts about kernel crash dumps, and transactions that make them work
license:
  - Apache-2.0
  - GPL-3.0-or-later
tags: [kdump, kexec, crash, linux, monitoring]
dependencies: {{}}
"""
_RUNTIME = """---
requires_ansible: ">=2.19.0"
"""
_README = f"""# {FULL}

Facts about kernel crash dumps from every Linux host, and changes that make dumps work, as one transaction per host.

| playbook | |
| --- | --- |
| `{FULL}.detect` | read-only: what each host says of itself; `-e kdo_facts_dir=$PWD/facts` keeps it |
| `{FULL}.validate` | read-only: would a crash be caught now; with `-e kdo_plan=plan.json`: is the host as the plan wants it |
| `{FULL}.apply` | `-e kdo_plan=plan.json`: that plan, with `--check` and `--diff` |
| `{FULL}.rollback` | back to before the last transaction |

Modules: `{FULL}.kdo_facts`, `kdo_apply`, `kdo_rollback`, `kdo_crash`; lookup: `{FULL}.kdo_change`. Each has its page: `ansible-doc {FULL}.kdo_apply`.
Which host needs what is decided by `kdo plan` (Python package kdump-orchestrator) from the facts; see docs/ansible.md.

The modules, playbooks and the lookup are GPL-3.0-or-later; `plugins/module_utils` and the rest are Apache-2.0.
"""


def _imports(text: str) -> str:
    """Module utilities of ours by their place in the collection; those of Ansible stay."""
    return re.sub(
        r"from ansible\.module_utils( import |\.)kdo_",
        rf"from ansible_collections.{FULL}.plugins.module_utils\1kdo_",
        text,
    )


def _tasks(text: str) -> str:
    """Modules, the lookup and playbooks by their full names."""
    modules = "|".join(sorted(p.stem for p in data_path("playbooks/library").glob("*.py")))
    text = re.sub(rf"^( +(?:- )?)({modules}):", rf"\1{FULL}.\2:", text, flags=re.M)
    text = text.replace(f"lookup('{LOOKUP}'", f"lookup('{FULL}.{LOOKUP}'")
    return re.sub(r"playbooks/(\w+)\.yml", rf"{FULL}.\1", text)


def _page(text: str) -> str:
    """A page of documentation: full names in its examples, and nowhere else."""
    head, mark, rest = text.partition("EXAMPLES")
    examples, close, tail = rest.partition("RETURN")
    return head + mark + _tasks(examples) + close + tail


def _same(text: str) -> str:
    return text


def files(docs: Path | None = None) -> Iterator[tuple[str, str]]:
    """(path in the collection, text) of everything in it. ``docs``: a page for people to put into docs/."""
    yield "galaxy.yml", _GALAXY
    yield "meta/runtime.yml", _RUNTIME
    yield "README.md", _README
    trees: Mapping[tuple[str, str], tuple[str, Callable[[str], str]]] = {
        ("playbooks", "*.yml"): ("playbooks", _tasks),
        ("playbooks/library", "*.py"): ("plugins/modules", _imports),
        ("playbooks/library", "*.yml"): ("plugins/modules", _page),
        ("playbooks/module_utils", "*.py"): ("plugins/module_utils", _imports),
        ("playbooks/lookup_plugins", "*.py"): ("plugins/lookup", _page),
        ("policies/knowledge", "probe.yaml"): ("policies/knowledge", _same),
    }
    for (source, pattern), (target, change) in trees.items():
        for path in sorted(data_path(source).glob(pattern)):
            yield f"{target}/{path.name}", change(path.read_text(encoding="utf-8"))
    if docs is not None and docs.is_file():
        yield f"docs/{docs.name}", docs.read_text(encoding="utf-8")


def write_tree(folder: Path) -> None:
    """The collection's sources below an empty or new ``folder``."""
    root = data_path("policies").parent
    copied = [
        p for p in (root / "CHANGELOG.md", root / "LICENSE", *sorted((root / "LICENSES").glob("*"))) if p.is_file()
    ]
    for name, text in files(root / "docs/ansible.md"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in copied:
        target = folder / path.relative_to(root)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def build(folder: Path) -> Path:
    """Build the tarball into ``folder`` and return its path. Raises :class:`KdoError` where ansible-galaxy refuses."""
    program = Path(sys.executable).with_name("ansible-galaxy")
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        write_tree(tree)
        command = [str(program), "collection", "build", "--output-path", place, str(tree)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        made = list(Path(place).glob("*.tar.gz"))
        if done.returncode or len(made) != 1:
            why = (done.stderr or done.stdout).strip()[-600:]
            raise KdoError("the collection cannot be built", where=str(program), why=why, fix="kdo doctor")
        out = folder / made[0].name
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(out, normal(made[0].read_bytes()), mode=0o644)
    return out


def normal(tarball: bytes) -> bytes:
    """The same collection with its files in order, and without anything of the moment and the machine it was made on."""
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        for info in archive.getmembers():
            file = archive.extractfile(info)
            members[info.name] = (info, file.read() if file is not None else b"")
    listing = json.loads(members["FILES.json"][1])
    listing["files"].sort(key=lambda entry: entry["name"])
    manifest = json.loads(members["MANIFEST.json"][1])
    text = json.dumps(listing, indent=True).encode()
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(text).hexdigest()
    members["FILES.json"] = (members["FILES.json"][0], text)
    members["MANIFEST.json"] = (members["MANIFEST.json"][0], json.dumps(manifest, indent=True).encode())
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(members):
            old, data = members[name]
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.size = old.type, EPOCH, len(data)
            info.mode = 0o755 if old.isdir() else 0o644
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), 9, mtime=0)


def main(arguments: list[str]) -> int:
    """Build into the folder that is named."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m orchestrator.collection FOLDER\n")
        return 2
    sys.stdout.write(f"{build(Path(arguments[0]))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
