# SPDX-License-Identifier: Apache-2.0
"""What no event tells, seen by looking now and then: small files are read, of others only the metadata is taken.

A look costs a few hundred ``lstat``. Dump targets are never touched: a server that is gone would hold a process that
asks it; their mounts are read from the kernel's table instead.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import iglob
from itertools import islice
from pathlib import Path

from orchestrator.agent.interest import PollRow, TargetRow
from orchestrator.documents.watch import Reason

MAX_VALUE = 4096  # bytes of a file that is read
MAX_MOUNTS = 4 << 20  # bytes of the table of mounts
MAX_PATHS = 2048  # of one entry

#: Entry → path → what is remembered of it. Absent paths are absent here.
Picture = Mapping[str, Mapping[str, str]]


def _value(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_VALUE).decode("utf-8", "replace").strip()
    except OSError:
        return None


def _stat(path: str) -> str | None:
    try:
        s = os.lstat(path)
    except OSError:
        return None
    if stat.S_ISBLK(s.st_mode) or stat.S_ISCHR(s.st_mode):
        return f"{s.st_mode:o} {s.st_rdev}"
    return f"{s.st_mode:o} {s.st_size} {s.st_mtime_ns} {s.st_ino}"


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def mounts(table: str) -> dict[str, str]:
    """Mount point → device, kind and source of what is mounted there last, from the text of mountinfo."""
    out: dict[str, str] = {}
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) >= 6 and len(kind) >= 2:
            options = fields[5].split(",")[0]  # ro or rw
            out[_unescaped(fields[4])] = f"{fields[2]} {kind[0]} {_unescaped(kind[1])} {options}"
    return out


def mount_of(path: str, table: Mapping[str, str]) -> str:
    """What the path lies on: its mount point and what is mounted there; empty when not even / is in the table."""
    # Two slashes at the beginning are kept by normpath, and mean something of their own nowhere on Linux.
    where = os.path.normpath("/" + path.lstrip("/"))
    while where not in table and where != "/":
        where = os.path.dirname(where)  # noqa: PTH120  (text, not a path of this machine)
    return f"{where} {table[where]}" if where in table else ""


def device_link(target: str) -> str | None:
    """The device file that a target's word means, if it means one."""
    for tag in ("UUID", "LABEL", "PARTUUID", "PARTLABEL"):
        if target.startswith(f"{tag}="):
            return f"/dev/disk/by-{tag.lower()}/{target.partition('=')[2]}"
    return target if target.startswith("/dev/") else None


class Poller:
    """Remembers one picture, and tells what is another one now. ``root`` is another one than ``/`` only in tests."""

    def __init__(self, rows: Sequence[PollRow], target: TargetRow, root: str = "/") -> None:
        self.rows = rows
        self.target = target
        self.root = root.rstrip("/")
        self.seen: Picture = {}

    def _here(self, pattern: str) -> Iterator[str]:
        """Paths that a pattern means, without the root in front. ``lstat`` decides later whether they are there."""
        if "*" not in pattern:
            yield pattern
            return
        for path in islice(iglob(self.root + pattern), MAX_PATHS):  # noqa: PTH207  (iglob makes no objects)
            yield path[len(self.root) :]

    def picture(self, targets: Iterable[str]) -> Picture:
        """Everything as it is now."""
        out: dict[str, dict[str, str]] = {}
        for row in self.rows:
            found: dict[str, str] = {}
            for path in row.values:
                if (value := _value(Path(self.root + path))) is not None:
                    found[path] = value
            for pattern in row.paths:
                for path in self._here(pattern):
                    if len(found) < MAX_PATHS and (known := _stat(self.root + path)) is not None:
                        found[path] = known
            out[row.id] = found
        out[self.target.id] = self._targets(targets)
        return out

    def _targets(self, targets: Iterable[str]) -> dict[str, str]:
        try:
            with Path(f"{self.root}/proc/self/mountinfo").open("rb") as file:
                table = mounts(file.read(MAX_MOUNTS).decode("utf-8", "replace"))
        except OSError:
            table = {}
        out: dict[str, str] = {}
        for target in targets:
            link = device_link(target)
            if link is not None:
                if (known := _stat(self.root + link)) is not None:
                    out[target] = known
            elif target.startswith("/"):
                out[target] = mount_of(target, table)
        return out

    def look(self, targets: Iterable[str]) -> list[Reason]:
        """What has changed since the last call; nothing at the first one."""
        before, self.seen = self.seen, self.picture(targets)
        return differences(before, self.seen, [*self.rows, self.target]) if before else []


def differences(before: Picture, after: Picture, rows: Sequence[PollRow | TargetRow]) -> list[Reason]:
    """One reason for each entry of which something is different, naming the first path."""
    out: list[Reason] = []
    for row in rows:
        old, new = before.get(row.id, {}), after.get(row.id, {})
        changed = sorted(p for p in {*old, *new} if old.get(p) != new.get(p))
        if not changed:
            continue
        path = changed[0]
        readable = isinstance(row, TargetRow) or path in row.values
        seen = f"{path}: {old.get(path, 'absent')} → {new.get(path, 'absent')}" if readable else _how(path, old, new)
        out.append(Reason(id=row.id, what=row.what, seen=seen[:300], count=len(changed)))
    return out


def _how(path: str, old: Mapping[str, str], new: Mapping[str, str]) -> str:
    return f"{path} {'appeared' if path not in old else 'is gone' if path not in new else 'changed'}"
