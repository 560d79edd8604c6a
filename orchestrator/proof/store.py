# SPDX-License-Identifier: Apache-2.0
"""Proofs that are kept: one private JSON file each below ``$XDG_STATE_HOME/kdump-orchestrator/proofs``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from orchestrator.documents.base import FORMAT_VERSION, digest, major, pretty
from orchestrator.documents.proof import Proof
from orchestrator.errors import InvalidInput, KdoError
from orchestrator.files import write_atomically
from orchestrator.resources import state_dir


def keep(proof: Proof, folder: Path | None = None) -> Path:
    """Write a proof and return its file; whoever reads meanwhile sees all of it or nothing."""
    folder = folder or state_dir() / "proofs"
    # A host's name never becomes a file name: it may be anything.
    path = folder / f"{proof.at.replace(':', '')}-{digest(proof)[:12]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, pretty(proof))
    except OSError as error:
        raise KdoError("the proof cannot be kept", where=str(folder), why=str(error)) from error
    return path


def read(path: Path) -> Proof:
    """One stored proof. Raises :class:`InvalidInput` when the file is not one."""
    try:
        proof = msgspec.json.decode(path.read_bytes(), type=Proof)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInput("this is not a proof", where=str(path), why=str(error)) from error
    if major(proof.format_version) != major(FORMAT_VERSION):
        why = f"its format is {proof.format_version}, this kdo reads {FORMAT_VERSION}"
        raise InvalidInput("this proof cannot be read", where=str(path), why=why, fix="use the kdo that wrote it")
    return proof


def stored(folder: Path | None = None) -> list[Proof]:
    """Every proof that was kept, oldest first."""
    folder = folder or state_dir() / "proofs"
    return sorted((read(path) for path in folder.glob("*.json")), key=lambda proof: proof.at)


def by_host(proofs: Iterable[Proof]) -> Mapping[str, Sequence[Proof]]:
    """Host → its crash tests, oldest first; one that is kept in two places counts once. A rehearsal is about a guest, whatever it
    was modelled on."""
    found: dict[str, dict[str, Proof]] = {}
    for proof in proofs:
        if proof.how == "crash-test":
            found.setdefault(proof.host, {})[proof.at] = proof
    return {host: [each[at] for at in sorted(each)] for host, each in found.items()}
