# SPDX-License-Identifier: Apache-2.0
"""Policies that build on others: which files belong to one, in which order they count, and what they are together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.documents.decision import PLACES
from orchestrator.errors import InvalidInput, PolicyError, Problem
from orchestrator.policy.schema import check_schema
from orchestrator.resources import data_path, data_root
from orchestrator.yamlmarks import Marked
from orchestrator.yamlmarks import Path as YamlPath
from orchestrator.yamlmarks import load as load_yaml

MAX_BYTES = 4 << 20
_MAX_FILES = 64

#: Asked for every file that did not come with the tool: its bytes; answers who has signed it, or raises.
Verify = Callable[[Path, bytes], str]

#: Keys of which one excludes the others: a stronger policy that sets one takes the others of a weaker one away.
_EXCLUSIVE = {
    "target": frozenset({"path", "key", *PLACES}),
    "reservation": frozenset({"crashkernel", "table", "size"}),
}
_ONLY_COMPUTED = frozenset({"placement", "extra", "low", "deltas"})  # of a reservation that is not given verbatim


@dataclass(frozen=True)
class PolicyFile:
    """One file, read and of the right shape. ``signer`` is empty unless signatures were asked for."""

    name: str
    marked: Marked
    signer: str = ""

    @property
    def spec(self) -> Mapping[str, Any]:
        """Its ``spec``."""
        spec: Mapping[str, Any] = self.marked.data["spec"]
        return spec


@dataclass(frozen=True)
class Entry:
    """A rule, an override or a default, and where it is written."""

    file: PolicyFile
    path: YamlPath
    data: Mapping[str, Any]

    @property
    def where(self) -> str:
        """``file:line:col``."""
        return self.file.marked.where(self.path)


@dataclass
class Composed:
    """What all files say together. Rules in the order in which they are tried, overrides in the order in which they apply."""

    files: list[PolicyFile]
    settings: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)
    rules: list[Entry] = field(default_factory=list)
    overrides: list[Entry] = field(default_factory=list)
    default: Entry | None = None


def shipped() -> dict[str, Path]:
    """Name → file of every policy that comes with the tool."""
    found = {"default": data_path("policies/default.yaml")}
    found |= {p.stem: p for p in sorted(data_path("policies/presets").glob("*.yaml"))}
    return found


def locate(name: str, beside: Path | None = None) -> Path:
    """The file that ``name`` means: a shipped policy's name, or a path (relative to the file that extends it)."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return (beside or Path()) / name
    known = shipped()
    if name in known:
        return known[name]
    if beside is None:
        return Path(name)
    raise InvalidInput(
        f"there is no shipped policy {name!r}",
        why="a word without / and .yaml is the name of a shipped policy",
        fix="one of: " + ", ".join(known) + "; or the path of a file",
    )


def display(path: Path) -> str:
    """The name for people: a shipped policy reads the same wherever it is installed, and so does a plan made with it."""
    whole = path.resolve()
    return str(whole.relative_to(data_root())) if whole.is_relative_to(data_root()) else str(path)


def read_bytes(path: Path, what: str = "policy") -> bytes:
    """The file's bytes. Raises :class:`PolicyError`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PolicyError(f"the file is larger than {MAX_BYTES} bytes", where=str(path), fix=f"is that a {what}?")
        return path.read_bytes()
    except OSError as e:
        fix = f"known names: {', '.join(shipped())}" if what == "policy" else "mend the path"
        raise PolicyError(f"cannot read the {what}", where=str(path), why=e.strerror or str(e), fix=fix) from None


def decode(data: bytes, where: str, what: str = "policy") -> str:
    """UTF-8 text. Raises :class:`PolicyError`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise PolicyError(
            f"the {what} is not UTF-8 text", where=f"{where}: byte {e.start}", fix="save it as UTF-8"
        ) from None


def parse_file(text: str, name: str, signer: str = "") -> PolicyFile:
    """One file of the right shape. Raises :class:`PolicyError` with everything that is wrong with it."""
    try:
        marked = load_yaml(text, name)
    except InvalidInput as e:
        raise PolicyError([Problem(p.what, p.where, p.why, p.fix, "P001") for p in e.problems]) from None
    if problems := check_schema(marked):
        raise PolicyError(problems)
    return PolicyFile(name, marked, signer)


def read_tree(top: PolicyFile, beside: Path, verify: Verify | None = None) -> list[PolicyFile]:
    """The file and everything that it builds on, weakest first, each file once (where it counts least)."""
    order: list[PolicyFile] = []
    done: dict[Path, None] = {}

    def visit(file: PolicyFile, folder: Path, chain: tuple[Path, ...]) -> None:
        for index, name in enumerate(file.spec.get("extends", [])):
            where = file.marked.where(("spec", "extends", index))
            try:
                path = locate(name, folder).resolve()
            except InvalidInput as e:
                p = e.problems[0]
                raise PolicyError(p.what, where=where, why=p.why, fix=p.fix, id="P016") from None
            if path in chain:
                loop = " → ".join(display(p) for p in (*chain[chain.index(path) :], path))
                raise PolicyError("the policy builds on itself", where=where, why=loop, fix="remove one", id="P016")
            if path in done:
                continue
            if len(done) >= _MAX_FILES:
                raise PolicyError(f"more than {_MAX_FILES} files", where=where, fix="merge some of them", id="P016")
            visit(_read(path, where, verify), path.parent, (*chain, path))
            done[path] = None
        order.append(file)

    visit(top, beside, ())
    return order


def _read(path: Path, where: str, verify: Verify | None) -> PolicyFile:
    try:
        data = read_bytes(path)
    except PolicyError as e:
        p = e.problems[0]
        raise PolicyError(f"cannot read the policy {path}", where=where, why=p.why or p.what, id="P016") from None
    return read_file(path, data, verify, path)


def read_file(path: Path, data: bytes, verify: Verify | None, real: Path) -> PolicyFile:
    """One file from its bytes; what did not come with the tool must be signed when ``verify`` is given.

    ``real`` is the place that the bytes were read from: a link that changes meanwhile must not make a file a shipped one.
    """
    signer = ""
    if verify is not None and real not in {shipped_file.resolve() for shipped_file in shipped().values()}:
        signer = verify(path, data)
    name = display(path)
    return parse_file(decode(data, name), name, signer)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a stronger place over those of a weaker one: mappings key by key, everything else is replaced."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        if not (isinstance(old, Mapping) and isinstance(value, Mapping)):
            out[key] = value
            continue
        rivals = _EXCLUSIVE.get(key, frozenset())
        drop = rivals if rivals & value.keys() else frozenset()
        if key == "reservation" and "crashkernel" in value:
            drop |= _ONLY_COMPUTED
        out[key] = merge({k: v for k, v in old.items() if k not in drop}, value)
    return out


def compose(files: list[PolicyFile]) -> Composed:
    """All files together. Raises :class:`PolicyError`."""
    out = Composed(files)
    problems: list[Problem] = []
    for file in files:
        spec = file.spec
        out.settings = merge(out.settings, spec.get("settings", {}))
        out.rollout = {**out.rollout, **spec.get("rollout", {})}
        out.overrides += [Entry(file, ("spec", "overrides", i), o) for i, o in enumerate(spec.get("overrides", []))]
        own = [Entry(file, ("spec", "rules", i), r) for i, r in enumerate(spec.get("rules", []))]
        fresh = []
        for entry in own:
            if not entry.data.get("replace"):
                fresh.append(entry)
                continue
            at = next((i for i, r in enumerate(out.rules) if r.data["id"] == entry.data["id"]), None)
            if at is None:
                problems.append(
                    Problem(
                        f"there is no inherited rule {entry.data['id']!r} to replace",
                        entry.where,
                        "replace: true takes the place of a rule of a policy that this one extends",
                        "remove replace, or mend the id",
                        "P017",
                    )
                )
            else:
                out.rules[at] = entry
        out.rules = fresh + out.rules
        if "default" in spec:
            out.default = Entry(file, ("spec", "default"), {"id": "default", "match": {}, **spec["default"]})
    if problems:
        raise PolicyError(problems)
    out.rules.sort(key=lambda entry: not entry.data.get("guard", False))
    return out
