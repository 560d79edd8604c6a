# SPDX-License-Identifier: Apache-2.0
"""The systemd units that come with the tool: listed, shown with the path of this kdo in them, and installed. Never enabled."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InvalidInput, did_you_mean
from orchestrator.files import write_atomically

PLACEHOLDER = "@KDO@"
_FOLDER = "/etc/systemd/system"
_PLAIN = re.compile(r"/[A-Za-z0-9_./+,:=-]+\Z")  # what needs no quoting in ExecStart


@dataclass(frozen=True)
class Unit:
    """One unit file, with the placeholder still in it."""

    name: str
    template: str

    @property
    def description(self) -> str:
        """Its own words."""
        found = re.search(r"^Description=(.*)$", self.template, re.MULTILINE)
        return found[1] if found else ""

    def text(self, kdo: str) -> str:
        """The unit with the path of kdo."""
        return self.template.replace(PLACEHOLDER, kdo)


def units() -> dict[str, Unit]:
    """Name → unit, sorted by name."""
    folder = Path(__file__).with_name("units")
    files = sorted([*folder.glob("*.service"), *folder.glob("*.timer")])
    return {path.name: Unit(path.name, path.read_text(encoding="utf-8")) for path in files}


def unit(name: str) -> Unit:
    """One of them. Raises :class:`InvalidInput`."""
    known = units()
    if name not in known:
        fix = did_you_mean(name, known) or "one of: " + ", ".join(known)
        raise InvalidInput(f"there is no unit {name[:80]!r}", fix=fix)
    return known[name]


def own_path(given: str | None) -> str:
    """The absolute path of kdo that goes into units: the given one, or the one that runs. Raises :class:`InvalidInput`."""
    if given is None:
        beside = Path(sys.executable).with_name("kdo")  # of the environment that this very code is imported from
        path = str(beside) if os.access(beside, os.X_OK) else shutil.which("kdo") or ""
    else:
        path = given
    if not _PLAIN.match(path):
        why = f"it is {path!r}" if path else "kdo was not started by its command, so its path is not known"
        fix = "say it with --exec /usr/local/bin/kdo"
        raise InvalidInput("an absolute path of kdo without blanks is needed", why=why, fix=fix)
    return path


def install(names: list[str], root: Path, kdo: str) -> list[Path]:
    """Write the units below ``root``; all names are looked at before anything is written. Raises :class:`InvalidInput`."""
    wanted = [unit(name) for name in dict.fromkeys(names)]
    folder = root / _FOLDER.lstrip("/")
    out = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in wanted:
            path = folder / one.name
            write_atomically(path, one.text(kdo).encode(), 0o644)
            out.append(path)
    except OSError as e:
        why, fix = e.strerror or str(e), "run as root, or give another --root"
        raise InvalidInput("the units cannot be written", where=str(folder), why=why, fix=fix) from None
    return out


def enabling(names: list[str]) -> str:
    """The one command that starts them now and at each boot; a service that has a timer is started by it."""
    timed = {n.removesuffix(".timer") for n in names if n.endswith(".timer")}
    known = units()
    starting = []
    for name in dict.fromkeys(names):
        if name.endswith(".service") and name.removesuffix(".service") in timed:
            continue
        if "[Install]" not in known[name].template:
            continue
        starting.append(name.replace("@.", "@QUEUE."))
    begin = "systemctl daemon-reload"
    return f"{begin} && systemctl enable --now {' '.join(starting)}" if starting else begin
