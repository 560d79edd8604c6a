# SPDX-License-Identifier: Apache-2.0
"""The locked development set: every package of `.[dev]`, its version and the hashes of its files, for all Pythons alike.

uv makes the file, pip installs from it. One version of a package for every Python (``--fork-strategy fewest``): what was
tested on one of them is what the others get.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import KdoError

FILE: Final = "requirements.txt"  # in tests/
ARA: Final = "ara.txt"  # beside it: what the tests of the coexistence with ARA install, apart from everything else
_ARA: Final = "ara[server]>=1.7\n"
_UV: Final = "uv==0.13.9"
_OLDEST: Final = "3.11"
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))? \\$")
_HASH = re.compile(r"^    --hash=sha256:([0-9a-f]{64})(?: \\)?$")


@dataclass(frozen=True)
class Pin:
    """One package of the lock. ``marker``: where it is wanted, as PEP 508 says it; ``files``: sha256 of each file of the version."""

    name: str
    version: str
    marker: str
    files: tuple[str, ...]


def canonical(name: str) -> str:
    """A package's name as indexes know it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read(text: str) -> dict[str, Pin]:
    """Canonical name → pin of a lock file. Raises :class:`KdoError` for a line that is not one of ours."""
    out: dict[str, Pin] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        found, digest = _PIN.match(line), _HASH.match(line)
        if found:
            name = canonical(found["name"])
            if name in out:
                raise KdoError(f"{name} is there twice", where=f"{FILE}:{number}", fix="make lock")
            out[name] = Pin(name, found["version"], found["marker"] or "", ())
        elif digest and name:
            pin = out[name]
            out[name] = Pin(pin.name, pin.version, pin.marker, (*pin.files, digest[1]))
        elif line.strip() and not line.lstrip().startswith("#"):
            raise KdoError("this line cannot be read", where=f"{FILE}:{number}", why=line[:80], fix="make lock")
    return out


def constraints(pins: dict[str, Pin]) -> str:
    """The versions alone, for pip's ``--constraint``: with hashes it would want one of everything that it installs."""
    return "".join(f"{p.name}=={p.version}{f' ; {p.marker}' if p.marker else ''}\n" for p in pins.values())


def renew(top: Path, folder: Path) -> list[Path]:
    """Write the lock files anew, with the newest versions that pyproject.toml admits. Raises :class:`KdoError`."""
    with tempfile.TemporaryDirectory() as place:
        _run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", place, _UV], top)
        made = Path(place) / FILE
        _compile(place, ["--extra", "dev", "pyproject.toml"], made, top)
        wish, beside = Path(place) / "ara.in", Path(place) / ARA
        wish.write_text(_ARA, encoding="utf-8")
        _compile(place, ["--constraint", os.fspath(made), "--no-annotate", os.fspath(wish)], beside, top)
        found = {path.name: path.read_text(encoding="utf-8") for path in (made, beside)}
    for name, text in found.items():
        read(text)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in found]


def _compile(place: str, wanted: list[str], made: Path, top: Path) -> None:
    command = [
        f"{place}/bin/uv", "pip", "compile", "--quiet", "--universal", "--python-version", _OLDEST,
        "--fork-strategy", "fewest", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links",
        "--custom-compile-command", "make lock", *wanted, "--output-file", os.fspath(made),
    ]  # fmt: skip
    _run(command, top)


def _run(command: list[str], top: Path) -> None:
    done = subprocess.run(command, cwd=top, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KdoError("the lock cannot be made", where=" ".join(command[:4]), why=(done.stdout + done.stderr)[-1000:])
