# SPDX-License-Identifier: Apache-2.0
"""Facts from hosts, trees and files. What comes from a host is untrusted: sizes and types are checked, nothing is run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from orchestrator import hostside
from orchestrator.documents.base import FORMAT_VERSION, major
from orchestrator.documents.facts import Facts, Signals
from orchestrator.errors import FactsError
from orchestrator.fleet.payload import extra_files
from orchestrator.fleet.runner import Progress, Whom, run_playbook
from orchestrator.resources import read_text
from orchestrator.yamlmarks import load as load_yaml

MAX_DOCUMENT = 2 << 20  # bytes of one host's facts; an honest host needs about 40 KiB
MAX_FIELD = 256 << 10  # characters of one value


@dataclass(frozen=True)
class HostProblem:
    """A host that could not be asked, or whose answer is no facts document."""

    host: str
    status: str  # failed | unreachable
    what: str
    why: str = ""
    fix: str = ""


@dataclass
class Collected:
    """Facts of the hosts that answered, and the problems of those that did not; sorted by host."""

    facts: list[Facts] = field(default_factory=list)
    problems: list[HostProblem] = field(default_factory=list)
    trees: dict[str, dict[str, Any]] = field(default_factory=dict)


@cache
def interest() -> dict[str, Any]:
    """What the probe looks at (``policies/knowledge/probe.yaml``)."""
    name = "policies/knowledge/probe.yaml"
    data: dict[str, Any] = load_yaml(read_text(name), name).data["kdo_interest"]
    return data


class _Envelope(msgspec.Struct):
    """The outer shape of a line or file, its inside still undecoded."""

    host: str = ""
    facts: msgspec.Raw = msgspec.Raw()
    signals: msgspec.Raw = msgspec.Raw()
    hosts: list[msgspec.Raw] = []
    format_version: str = FORMAT_VERSION


_facts_decoder = msgspec.json.Decoder(Facts)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_NO_SIGNALS = Signals()


def _too_long(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) > MAX_FIELD
    if isinstance(value, dict):
        return any(_too_long(k) or _too_long(v) for k, v in value.items())
    return isinstance(value, list) and any(_too_long(v) for v in value)


def facts_from(raw: bytes | msgspec.Raw, host: str = "") -> Facts | HostProblem:
    """A facts document from JSON, or the reason why it is none. ``host`` overrides the name in it."""
    size = len(memoryview(raw))
    name = host or "unnamed"
    fix = "collect the facts again with this version of kdo"
    if size > MAX_DOCUMENT:
        return HostProblem(
            name,
            "failed",
            "the host's answer is too large",
            f"{size} bytes, at most {MAX_DOCUMENT}",
            "look at what it sends",
        )
    try:
        if size > MAX_FIELD and _too_long(msgspec.json.decode(raw)):
            return HostProblem(
                name,
                "failed",
                "the facts hold an oversized value",
                f"more than {MAX_FIELD} characters",
                "look at what that host sends",
            )
        facts = _facts_decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        return HostProblem(name, "failed", "the host's answer is not a facts document", str(e)[:300], fix)
    return _named(facts, host)


def _named(facts: Facts, host: str) -> Facts | HostProblem:
    """The facts under the name that counts, unless their format is another one."""
    if facts.format_version != FORMAT_VERSION and major(facts.format_version) != major(FORMAT_VERSION):
        what = f"facts of format {facts.format_version[:20]} cannot be read"
        fix = "collect the facts again with this version of kdo"
        return HostProblem(host or facts.host[:255], "failed", what, f"this version reads {FORMAT_VERSION}", fix)
    name = (host or facts.host or "unnamed")[:255]
    return facts if facts.host == name else msgspec.structs.replace(facts, host=name)


def from_hosts(
    whom: Whom,
    targets: Sequence[str],
    *,
    record: bool = False,
    udev: str = "auto",
    hosts: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Collected:
    """Ask hosts, one round trip each; ``hosts`` narrows the inventory to these names."""
    paths = sorted(set(targets))
    variables: dict[str, Any] = {
        "kdo_interest_json": msgspec.json.encode(interest()).decode(),
        "kdo_targets": paths,
        "kdo_extra_files": extra_files(paths),
        "kdo_record": record,
        "kdo_udev": udev,
    }
    answers = run_playbook("detect.yml", whom, variables=variables, hosts=hosts, progress=progress)
    out = Collected()
    for name in sorted(answers):
        answer = answers[name]
        if answer.status != "ok":
            out.problems.append(problem_of(name, answer.status, answer.message))
            continue
        facts = facts_from(msgspec.json.encode(answer.result.get("kdo_facts")), name)
        if isinstance(facts, HostProblem):
            out.problems.append(facts)
            continue
        out.facts.append(facts)
        if record and isinstance(answer.result.get("kdo_tree"), dict):
            out.trees[name] = answer.result["kdo_tree"]
    return out


def from_here(targets: Sequence[str], host: str, groups: Sequence[str] = (), root: str = "/") -> Facts | HostProblem:
    """Facts of this machine, asked directly: the same probe as on a host, in this process, without Ansible.

    It needs no temporary file and a quarter of a second less; another ``root`` than ``/`` is a tree of files.
    """
    paths = sorted(set(targets))
    wanted = interest()
    wanted = {**wanted, "files": [*wanted["files"], *extra_files(paths)]}
    try:
        data = hostside.collect(root, host, wanted, paths, {"groups": list(groups)})
    except Exception as e:  # the probe guards itself; whatever gets through must not end a process that watches
        what, fix = "this machine could not be looked at", "kdo detect shows more; if it fails too, report it"
        return HostProblem(host, "failed", what, f"{type(e).__name__}: {e}"[:300], fix)
    return facts_from(msgspec.json.encode(data), host)


def problem_of(host: str, status: str, message: str) -> HostProblem:
    """A failed or unreachable host with the reason in the field's words and what to do."""
    text = message.lower()
    if status == "unreachable":
        if "host key" in text or "host identification" in text:
            fix = "put the host's key into known_hosts (ssh-keyscan, after checking it), or use SSH certificates"
        elif "permission denied" in text:
            fix = "check user and key: ssh -v USER@HOST"
        else:
            fix = "check name, port and network: ssh HOST true"
        return HostProblem(host, "unreachable", "the host cannot be reached", message, fix)
    if "sudo" in text or "become" in text or "privilege" in text:
        return HostProblem(
            host,
            status,
            "root's rights cannot be had",
            message,
            "allow sudo for that user, or set ansible_become_method",
        )
    if "interpreter" in text or "python" in text or "no such file" in text:
        return HostProblem(
            host,
            status,
            "there is no usable Python on the host",
            message,
            "install python3, or set ansible_python_interpreter",
        )
    return HostProblem(host, status, "the host could not do it", message, "run again with ANSIBLE_DEBUG=1 for details")


def from_tree(root: Path, targets: Sequence[str], host: str = "") -> Collected:
    """Probe a directory as if it were a host's root."""
    if not root.is_dir():
        raise FactsError("there is no such tree", where=str(root), fix="--root wants a directory")
    data = hostside.collect(str(root), host or root.resolve().name, interest(), list(targets))
    facts = facts_from(msgspec.json.encode(data))
    return Collected([facts], []) if isinstance(facts, Facts) else Collected([], [facts])


def _entries(raw: bytes, where: str) -> Iterator[Facts | HostProblem]:
    """The hosts in one JSON document: a facts document, one entry of ``kdo detect``, or all of its output."""
    fix = "give a file made by `kdo detect --format json`, or JSON lines"
    try:
        envelope = _envelope_decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise FactsError("not a facts document", where=where, why=str(e)[:300], fix=fix) from None
    if envelope.hosts:
        for entry in envelope.hosts:
            yield from _entries(bytes(entry), where)
    elif memoryview(envelope.facts):
        yield facts_from(envelope.facts, envelope.host)
    elif memoryview(envelope.signals) or envelope.host:
        yield facts_from(raw, envelope.host)
    else:
        raise FactsError("not a facts document", where=where, why="it has neither host nor facts", fix=fix)


def _plain(line: bytes) -> Facts | HostProblem | None:
    """The host in a line that is facts and nothing around them, as most are: read in one pass instead of two."""
    if len(line) > MAX_FIELD:  # looked at more closely
        return None
    try:
        facts = _facts_decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return None if facts.signals == _NO_SIGNALS else _named(facts, "")  # an entry of `kdo detect` has none at its top


def stream(path: str) -> Iterator[Facts | HostProblem]:
    """Recorded facts one host at a time, in the order of the file; JSON lines are never held in memory as a whole."""
    name = "stdin" if path == "-" else path
    try:
        file = sys.stdin.buffer if path == "-" else Path(path).open("rb")  # noqa: SIM115
        with file:
            first = file.readline()
            try:
                msgspec.json.decode(first)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                yield from _entries(first + file.read(), name)  # one document over several lines
                return
            yield from _entries(first, f"{name}:1")
            for number, line in enumerate(file, 2):
                found = _plain(line)
                if found is not None:
                    yield found
                elif line.strip():
                    yield from _entries(line, f"{name}:{number}")
    except OSError as e:
        raise FactsError(
            "cannot read the facts",
            where=name,
            why=e.strerror or str(e),
            fix="give a file made by `kdo detect --format json`",
        ) from None


def from_files(paths: Iterable[str]) -> Collected:
    """Recorded facts of several files, sorted by host. A host that stands twice is an error: which one counts?"""
    out = Collected()
    names: set[str] = set()
    for path in paths:
        for item in stream(path):
            if isinstance(item, HostProblem):
                out.problems.append(item)
                continue
            if item.host in names:
                raise FactsError(
                    f"host {item.host[:80]!r} stands twice in the facts", where=path, fix="give each host once"
                )
            names.add(item.host)
            out.facts.append(item)
    out.facts.sort(key=lambda f: f.host)
    out.problems.sort(key=lambda p: p.host)
    return out
