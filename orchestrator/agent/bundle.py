# SPDX-License-Identifier: Apache-2.0
"""Bundles: made from policy and waivers, checked, and opened again on a host.

What comes out of a bundle is read by the same code as files are, from a private directory that is gone afterwards; a
policy in it can build on other files of the bundle and on shipped policies, and on nothing else of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path, PurePosixPath

import msgspec

from orchestrator import __version__
from orchestrator.agent.look import Orders
from orchestrator.checks.base import all_checks
from orchestrator.checks.run import verdict  # noqa: F401  (registers the checks)
from orchestrator.documents.base import FORMAT_VERSION, major, pretty
from orchestrator.documents.bundle import Bundle
from orchestrator.documents.report import ReportPolicy
from orchestrator.errors import InvalidInput, KdoError, PolicyError, Problem
from orchestrator.fleet.runner import run_directory
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.compose import PolicyFile, Verify, decode, locate, read_bytes, read_file, read_tree, shipped
from orchestrator.policy.lint import require_sound
from orchestrator.policy.load import Policy, compiled, load
from orchestrator.policy.waivers import Waiver
from orchestrator.policy.waivers import parse as parse_waivers

MAX_BUNDLE = 4 << 20  # bytes
MAX_FILES = 128
_MAX_NAME = 240
_DEEPEST = 16  # folders in a name
_FIX = "make it again: kdo bundle create"


# ---------------------------------------------------------------------- made


class _Recorder:
    """Stands where a signature is asked for: it sees the very bytes of every file that did not come with the tool."""

    def __init__(self, verify: Verify | None) -> None:
        self.verify = verify
        self.files: dict[Path, bytes] = {}

    def __call__(self, path: Path, data: bytes) -> str:
        self.files[path.resolve()] = data
        return self.verify(path, data) if self.verify is not None else ""


def create(
    policy: str,
    waivers: Sequence[str],
    serial: int,
    expires: date | None,
    known: Knowledge,
    *,
    any_tool: bool = False,
    verify: Verify | None = None,
) -> Bundle:
    """Everything that the policy is made of, and the waivers. Raises :class:`KdoError` for whatever is wrong with them."""
    recorder = _Recorder(verify)
    read = load(policy, known, recorder)
    require_sound(read, known)
    names = _names(list(recorder.files))
    files = {names[path]: decode(data, str(path)) for path, data in recorder.files.items()}
    waiver_names: list[str] = []
    for number, file in enumerate(waivers, 1):
        data = read_bytes(Path(file), "waivers file")
        if verify is not None:
            verify(Path(file), data)
        name = f"waivers/{number}-{Path(file).name}"
        files[name] = decode(data, file, "waivers file")
        waiver_names.append(name)
    top = locate(policy).resolve()
    made = Bundle(
        serial=serial,
        expires=expires.isoformat() if expires is not None else "",
        tool=__version__,
        any_tool=any_tool,
        policy=names.get(top, policy),
        policy_name=read.name,
        policy_hash=read.hash,
        waivers=waiver_names,
        files=files,
    )
    _shape(made, policy)
    if len(data := pretty(made)) > MAX_BUNDLE:
        raise InvalidInput(f"the bundle would have {len(data)} bytes", why=f"at most {MAX_BUNDLE}", fix="split it")
    try:
        opened(made, known, "")  # as a host will
    except PolicyError as e:
        why = e.problems[0].what + (f" ({e.problems[0].where})" if e.problems[0].where else "")
        fix = "name other files in extends relative to the file that extends, without links"
        raise InvalidInput("the policy does not work from a bundle", where=policy, why=why, fix=fix) from None
    return made


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """File → name in the bundle: the way from the folder that holds them all, so that they find each other again."""
    if not paths:
        return {}
    base = os.path.commonpath([str(path.parent) for path in paths])
    return {path: f"policy/{path.relative_to(base).as_posix()}" for path in paths}


# ---------------------------------------------------------------------- read


def parse(data: bytes, where: str) -> Bundle:
    """A bundle from its bytes, which somebody has signed: sizes, types and names are checked. Raises :class:`InvalidInput`."""
    if len(data) > MAX_BUNDLE:
        raise InvalidInput("the bundle is too large", where=where, why=f"more than {MAX_BUNDLE} bytes", fix=_FIX)
    try:
        found = msgspec.json.decode(data, type=Bundle)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise InvalidInput("this is not a bundle", where=where, why=str(e)[:300], fix=_FIX) from None
    if found.kind != "Bundle" or major(found.format_version) != major(FORMAT_VERSION):
        why = f"{found.kind[:40]} {found.format_version[:20]}, this version reads Bundle {FORMAT_VERSION}"
        raise InvalidInput("this bundle cannot be read", where=where, why=why, fix="use the kdo that made it")
    _shape(found, where)
    return found


def _shape(bundle: Bundle, where: str) -> None:
    if bundle.serial < 1:
        raise InvalidInput(f"the serial {bundle.serial} is none", where=where, why="they begin at 1", fix=_FIX)
    if len(bundle.files) > MAX_FILES:
        raise InvalidInput("too many files", where=where, why=f"{len(bundle.files)}, at most {MAX_FILES}", fix=_FIX)
    for name in bundle.files:
        if why := _unsafe(name):
            raise InvalidInput(f"{name[:80]!r} cannot be a file of a bundle", where=where, why=why, fix=_FIX)
    missing = [n for n in bundle.waivers if n not in bundle.files]
    if bundle.policy not in bundle.files and bundle.policy not in shipped():
        missing.append(bundle.policy)
    if missing:
        raise InvalidInput("a file is missing in the bundle", where=where, why=f"{missing[0][:80]!r}", fix=_FIX)
    if bundle.expires:
        expiry(bundle, where)


def _unsafe(name: str) -> str:
    """Why a name must not become a file; empty when it may."""
    parts = name.split("/")
    if len(name) > _MAX_NAME or len(parts) > _DEEPEST:
        return "it is too long"
    if not name.isprintable() or "\\" in name:
        return "it has characters that names do not have"
    if any(p in ("", ".", "..") for p in parts) or PurePosixPath(name).is_absolute():
        return "it leads out of the bundle"
    return ""


def expiry(bundle: Bundle, where: str) -> date | None:
    """Its last day. Raises :class:`InvalidInput` when that is no day."""
    try:
        return date.fromisoformat(bundle.expires) if bundle.expires else None
    except ValueError:
        what = f"{bundle.expires[:40]!r} is not a day"
        raise InvalidInput(what, where=where, why="a day is written as YYYY-MM-DD", fix=_FIX) from None


def expired(bundle: Bundle, today: date, where: str) -> Problem | None:
    """The problem that its time is over, or ``None``."""
    last = expiry(bundle, where)
    if last is None or today <= last:
        return None
    what, why = f"the bundle {bundle.serial} has expired", f"its last day was {last}, today is {today} (UTC)"
    return Problem(what, where, why, "make a new one, with a larger serial, and sign it; or set this host's clock")


# ---------------------------------------------------------------------- opened


def _inside(bundle: Bundle, root: Path, signer: str) -> Verify:
    """Stands where a signature is asked for: a file counts as the bundle's signer's when it is the bundle's own."""
    own = {(root / name).resolve(): text.encode() for name, text in bundle.files.items()}

    def verify(path: Path, data: bytes) -> str:
        if own.get(path.resolve()) != data:
            what, why = f"{path} is not part of the bundle", "a bundle builds on its own files and on shipped policies"
            raise PolicyError(what, where=f"bundle {bundle.serial}", why=why, fix=_FIX, id="P067")
        return signer

    return verify


def _policy(bundle: Bundle, known: Knowledge, signer: str) -> Policy:
    if bundle.policy not in bundle.files:
        return load(bundle.policy, known)
    with run_directory() as root:
        try:
            for name, text in bundle.files.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                path.write_bytes(text.encode())
        except OSError as e:
            raise InvalidInput("the bundle cannot be unpacked", why=e.strerror or str(e), fix=_FIX) from None
        try:
            path, verify = root / bundle.policy, _inside(bundle, root, signer)
            top = read_file(path, read_bytes(path), verify, path.resolve())
            files = read_tree(top, path.parent, verify)
        except KdoError as e:  # names of a directory that is gone tell nobody anything
            for found in (f"{root.resolve()}/", f"{root}/"):
                e.problems = [_renamed(p, found, _label(bundle)) for p in e.problems]
            raise
        return compiled([_named(file, root, bundle) for file in files], known)


def _label(bundle: Bundle) -> str:
    return f"bundle-{bundle.serial}/"


def _renamed(problem: Problem, found: str, label: str) -> Problem:
    what, where, why = (text.replace(found, label) for text in (problem.what, problem.where, problem.why))
    return replace(problem, what=what, where=where, why=why)


def _named(file: PolicyFile, root: Path, bundle: Bundle) -> PolicyFile:
    """The same file under its name in the bundle, which is the same on every host."""
    path = Path(file.name)
    for base in (root, root.resolve()):
        if path.is_relative_to(base):
            name = _label(bundle) + str(path.relative_to(base))
            return replace(file, name=name, marked=replace(file.marked, name=name))
    return file


def opened(bundle: Bundle, known: Knowledge, signer: str) -> Orders:
    """The bundle's policy and waivers, ready to judge by. Raises :class:`KdoError` with everything that is wrong.

    A policy that means something else here than where the bundle was made is refused: the knowledge data and the shipped
    policies of another version of the tool can decide otherwise.
    """
    policy = _policy(bundle, known, signer)
    require_sound(policy, known)
    if policy.hash != bundle.policy_hash and not bundle.any_tool:
        why = f"it was made with version {bundle.tool}, this is {__version__}: knowledge or shipped policies differ"
        fix = f"install version {bundle.tool} here; or make it with --any-tool, if other knowledge may judge by it"
        raise InvalidInput(
            "the bundle is for another version of kdump-orchestrator", where=f"bundle {bundle.serial}", why=why, fix=fix
        )
    checks, waivers = all_checks(), list[Waiver]()
    for name in bundle.waivers:
        for waiver in parse_waivers(bundle.files[name], _label(bundle) + name, known, checks, policy, signer):
            if any(w.id == waiver.id for w in waivers):
                raise PolicyError(
                    f"the waiver {waiver.id!r} stands twice", where=waiver.where, fix="rename one", id="W002"
                )
            waivers.append(waiver)
    told = ReportPolicy(serial=bundle.serial, policy=policy.name, policy_hash=policy.hash, signer=signer)
    return Orders(Pipeline(policy, known), waivers, told)


def fingerprint(data: bytes) -> str:
    """How two bundles of one serial are told apart: SHA-256 (hex) of the bytes."""
    return sha256(data).hexdigest()
