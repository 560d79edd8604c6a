# SPDX-License-Identifier: Apache-2.0
"""The probe as one program text for ``python3 -``: what ``playbooks/library/kdo_facts.py`` does, without Ansible around it.

The sources of ``playbooks/module_utils`` are packed once per process, always into the same bytes. What differs from host
to host is data (JSON in base64) in the same stream: nothing of it is in a command line, and nothing goes through a shell.
The program reads its standard input only, writes no file, and prints one JSON document between two marks of this sweep.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from orchestrator.resources import read_text

_ENTRY = "kdo_probe"
_UTILS = "playbooks/module_utils"

# Python 3.6 and later. The directory that python3 was started in is taken off the path before anything is imported:
# below sudo it is a user's own home, and a file named struct.py there must not become root's.
# `ansible` may be installed there, with or without modules of ours: it is not asked.
_START = b"""import sys
sys.path[:] = [p for p in sys.path if p]
sys.dont_write_bytecode = True
import base64, json, os, traceback, types, zlib
def unpack(data):
    return json.loads(zlib.decompress(base64.b64decode(data)).decode("ascii"))
def main(sources, common, own):
    sys.modules["ansible"] = None
    try:
        for name, text in sources:
            module = types.ModuleType(name)
            sys.modules[name] = module
            exec(compile(text, name + ".py", "exec"), module.__dict__)
        reader = sys.modules["kdo_probe_reader"].Reader("/")
        inventory = {"groups": own["groups"], "tags": own["tags"]}
        probe = sys.modules["kdo_probe"].probe
        facts = probe(reader, own["host"], common["interest"], common["targets"], inventory, common["udev"])[0]
        word, said = "facts", json.dumps(facts)
    except Exception as e:
        place = traceback.extract_tb(e.__traceback__)[-1]
        where = "%s:%s" % (os.path.basename(place[0]), place[1])
        word = "failed"
        said = json.dumps("the probe failed at %s: %s: %s" % (where, e.__class__.__name__, str(e)[:300]))
    mark = own["mark"]
    sys.stdout.write("\\n%s %s\\n%s\\n%s end\\n" % (mark, word, said, mark))
    sys.stdout.flush()
"""


@cache
def sources() -> tuple[tuple[str, str], ...]:
    """(name, text) of the probe's modules, each after the modules that it imports."""
    import ast  # noqa: PLC0415  (only a sweep needs it)

    done: dict[str, str] = {}

    def add(name: str) -> None:
        if name in done:
            return
        text = read_text(f"{_UTILS}/{name}.py")
        for node in ast.walk(ast.parse(text)):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for other in names:
                if other.startswith("kdo_"):
                    add(other)
        done[name] = text

    add(_ENTRY)
    return tuple(done.items())


def _pack(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")
    return base64.b64encode(zlib.compress(text, 9))


@cache
def _packed_sources() -> bytes:
    return _pack(sources())


@dataclass(frozen=True)
class Payload:
    """The program of one sweep. ``head``: what every host gets; ``mark``: what frames an answer."""

    head: bytes
    mark: str

    def text(self, host: str, groups: Sequence[str] = (), tags: Sequence[str] = ()) -> bytes:
        """The whole program for one host: the head, and one line of its own."""
        own = {"host": host, "groups": list(groups), "tags": list(tags), "mark": self.mark}
        data = base64.b64encode(json.dumps(own).encode("ascii"))
        return b'%bmain(S, C, json.loads(base64.b64decode(b"%b").decode("ascii")))\n' % (self.head, data)

    def answer(self, output: bytes) -> tuple[str, bytes]:
        """(``facts`` | ``failed`` | empty, JSON) from what a host printed. Whatever stands around the marks does not count."""
        mark = self.mark.encode("ascii")
        for word in ("facts", "failed"):
            opening = b"\n%b %b\n" % (mark, word.encode("ascii"))
            start = output.find(opening)
            if start >= 0:
                start += len(opening)
                end = output.find(b"\n%b end\n" % mark, start)
                if end >= 0:
                    return word, output[start:end]
        return "", b""


def build(interest: Mapping[str, Any], targets: Sequence[str], mark: str, udev: str = "auto") -> Payload:
    """The program for one sweep. The same arguments give the same bytes.

    ``targets`` and ``interest``: as ``playbooks/detect.yml`` gives them to the module (see :func:`asked`).
    ``mark``: a word without blanks that no host can know beforehand.
    """
    common = {"interest": interest, "targets": list(targets), "udev": udev}
    head = _START + b'S = unpack(b"%b")\nC = unpack(b"%b")\n' % (_packed_sources(), _pack(common))
    return Payload(head, mark)


def asked(interest: Mapping[str, Any], targets: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(interest, targets) as collect.from_hosts and detect.yml make them: the files beside each target are looked at too."""
    paths = sorted(set(targets))
    return {**interest, "files": [*interest["files"], *extra_files(paths)]}, paths


def extra_files(targets: Sequence[str]) -> list[str]:
    """What lies beside a dump directory that says how the dump would be made."""
    return [f"{p.rstrip('/')}/kexec_cmd" for p in targets if p.startswith("/") and p[:5] != "/dev/"]
