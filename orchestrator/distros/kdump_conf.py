# SPDX-License-Identifier: Apache-2.0
"""What a decision's target, collector and actions are called in /etc/kdump.conf.

Sources: rhkdump/kdump-utils gen-kdump-conf.sh and kdumpctl parse_config(): one value per key, at most one target, ``-F``
for makedumpfile where the target takes a stream. What the policy does not ask for stays as the administrator wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator import hostside
from orchestrator.documents.decision import PLACES, DumpTarget, Settings
from orchestrator.documents.facts import Facts

#: Settings in the order in which they are written; ``None`` = the line is not wanted.
Pairs = list[tuple[str, str | None]]

_FLAGS = {"zlib": "-c", "lzo": "-l", "snappy": "-p", "zstd": "-z"}
_LEVEL = re.compile(r"-d\d+(,\d+)*\Z")
_COPIES = ("cp", "scp")


class Unfit(Exception):
    """The host's file and the policy's wish do not go together; the text says why."""


@lru_cache(maxsize=4096)
def read(text: str) -> Mapping[str, str]:
    """Key → value. Raises :class:`Unfit` for a file that kdumpctl would not take either."""
    conf = hostside.load("kdo_conf")
    try:
        return {key: value for key, (value, _line) in conf.settings(text).items()}
    except conf.ConfError as e:
        raise Unfit(str(e)) from e


@dataclass(frozen=True)
class Conf:
    """One host's file with what knowledge says of it (the family's block in families.yaml)."""

    now: Mapping[str, str]
    data: Mapping[str, Any]
    arch: str

    @property
    def target_keys(self) -> tuple[str, ...]:
        """Keys of which at most one may stand in the file."""
        return (*self.data["filesystems"], "raw", "nfs", "ssh")

    @property
    def key(self) -> str:
        """Key of the target line; empty where dumps go below a directory of the running system."""
        return next((k for k in self.target_keys if k in self.now), "")

    def place(self) -> DumpTarget:
        """Where the file sends dumps, in the words of a policy; no kind where they stay below a directory."""
        key = self.key
        if not key:
            return DumpTarget()
        kind = key if key in PLACES else "filesystem"
        login = self.now.get("sshkey", "") if kind == "ssh" else ""
        return DumpTarget(kind=kind, place=self.now[key], path=self.now.get("path", ""), key=login)

    def wanted(self, s: Settings, filesystem: str) -> Pairs:
        """Every setting that is to be changed. ``filesystem``: the driver of the policy's filesystem."""
        out = self.target(s.target, filesystem)
        collector = self.collector(s, _key(s.target, filesystem) if s.target.kind else self.key)
        if collector != self.now.get("core_collector", self._default(self.key)):
            out.append(("core_collector", collector))
        return out

    def target(self, wish: DumpTarget, filesystem: str) -> Pairs:
        """The target line, with every other target line gone, and what goes with it."""
        if not wish.kind:
            return []
        if "--mount" in self.now.get("dracut_args", ""):
            raise Unfit("dracut_args names a target by --mount, and a second one is an error: take it out by hand")
        key = _key(wish, filesystem)
        wanted: dict[str, str | None] = {k: None for k in self.target_keys if k != key}
        if key:
            # kdumpctl compares it with what ssh makes of it, and ssh writes names of hosts in lower case.
            user, at, host = wish.place.partition("@")
            wanted[key] = user + at + host.lower() if key == "ssh" else wish.place
        if wish.path and wish.kind != "raw":
            wanted["path"] = wish.path
        if wish.key:
            wanted["sshkey"] = wish.key
        return [(k, v) for k, v in wanted.items() if self.now.get(k) != v]

    def _default(self, key: str) -> str:
        table = self.data["collector"]
        words: list[str] = table.get(self.arch, table["*"]).split()
        return " ".join([words[0], "-F", *words[1:]] if key in self.data["streams"] else words)

    def collector(self, s: Settings, key: str) -> str:
        """The command that copies the dump to a target with this key."""
        if s.collector == "copy":
            if key == "raw":
                raise Unfit("a raw target takes what makedumpfile writes, not a copy: leave dump.collector out")
            return "scp" if key == "ssh" else "cp"
        words = self.now.get("core_collector", "").split()
        asked = s.collector or s.dump_level is not None or s.dump_compression
        if words and words[0] != "makedumpfile" and not asked:
            if words[0] not in _COPIES:
                return " ".join(words)
            return self._default(key) if key == "raw" else "scp" if key == "ssh" else "cp"
        if not words or words[0] != "makedumpfile":
            words = self._default(key).split()
        words = [words[0], *(["-F"] if key in self.data["streams"] else []), *(w for w in words[1:] if w != "-F")]
        if s.dump_compression:
            words = _compressed(words, _FLAGS[s.dump_compression])
        if s.dump_level is not None:
            words = _levelled(words, s.dump_level)
        joined = " ".join(words)
        # As it was written, where nothing of it changes: blanks and the place of -F are the administrator's.
        before = self.now.get("core_collector", "")
        return before if sorted(before.split()) == sorted(words) else joined


def _key(wish: DumpTarget, filesystem: str) -> str:
    """Key of the line that a policy's target needs; empty for a directory of the running system."""
    return {"path": "", "filesystem": filesystem}.get(wish.kind, wish.kind)


def _compressed(words: list[str], flag: str) -> list[str]:
    """One flag of compression, where the old one stood; -E (ELF) cannot be compressed."""
    old = [w for w in words if w in _FLAGS.values()]
    if not old:
        at = 2 if words[1:2] == ["-F"] else 1
        return [*words[:at], flag, *(w for w in words[at:] if w != "-E")]
    return [flag if w == old[0] else w for w in words if w not in old[1:]]


def _levelled(words: list[str], level: int) -> list[str]:
    """``-d LEVEL`` once. makedumpfile also takes ``-dLEVEL`` and lists of levels."""
    out: list[str] = []
    done, skip = False, False
    for word in words:
        if skip:
            skip = False
            continue
        if word == "-d" or _LEVEL.match(word):
            skip = word == "-d"
            out += [] if done else ["-d", str(level)]
            done = True
        else:
            out.append(word)
    return out if done else [*out, "-d", str(level)]


def filesystem_of(wish: DumpTarget, facts: Facts, conf: Conf) -> str:
    """Driver of the policy's filesystem: as the host sees it, else as the file names it already. Raises Unfit."""
    if wish.kind != "filesystem":
        return ""
    name, _, value = wish.place.partition("=")
    for t in facts.targets:
        same = {"UUID": t.fs_uuid.lower() == value.lower(), "LABEL": t.fs_label == value}.get(
            name, t.source == wish.place
        )
        if t.fs_type and (t.path == wish.place or ((value or name.startswith("/")) and same)):
            if t.fs_type not in conf.data["filesystems"]:
                raise Unfit(f"{wish.place} holds {t.fs_type}, and kdump.conf knows no such target")
            return t.fs_type
    if conf.now.get(conf.key) == wish.place and conf.key in conf.data["filesystems"]:
        return conf.key
    raise Unfit(f"what filesystem {wish.place} holds was not seen on this host, and kdump.conf must name it")
