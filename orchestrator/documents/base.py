# SPDX-License-Identifier: Apache-2.0
"""What every document has in common: frozen structs, one canonical byte form, one hash."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

#: Version of every document kind. A reader ignores unknown fields and refuses an unknown major number.
FORMAT_VERSION = "1.0"


class Document(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of all documents: immutable, compared by value, fields by keyword only.

    ``gc=False``: documents are trees without cycles, and a million of them must not slow the collector down.
    """


def encode(document: Any) -> bytes:
    """Canonical bytes: sorted dictionary keys, struct fields in declared order, no spaces; the same value gives the same bytes."""
    return msgspec.json.encode(document, order="deterministic")


def pretty(document: Any) -> bytes:
    """The same, indented by two spaces and ended by a newline, for files that people read and compare."""
    return msgspec.json.format(encode(document), indent=2) + b"\n"


def digest(document: Any) -> str:
    """SHA-256 (hex) of the canonical bytes."""
    return hashlib.sha256(encode(document)).hexdigest()


def to_builtins(document: Any) -> Any:
    """Dictionaries, lists and scalars, as ``json`` would give them."""
    return msgspec.to_builtins(document)


def major(version: str) -> str:
    """The part of a format version that must agree between writer and reader."""
    return version.split(".", 1)[0]
