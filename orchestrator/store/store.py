# SPDX-License-Identifier: Apache-2.0
"""The store as a whole: where it is, its documents, and who is speaking."""

from __future__ import annotations

import getpass
import os
import socket
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from orchestrator.documents.base import encode
from orchestrator.resources import state_dir
from orchestrator.store.database import Database, Statements, StoreError, open_database
from orchestrator.store.schema import check_version, migrate

D = TypeVar("D")

_LIMIT = 8 << 20  # bytes of one document when it is unpacked


def now() -> str:
    """This moment, UTC, to the millisecond; the text sorts as the time does."""
    return moment(datetime.now(UTC))


def moment(at: datetime) -> str:
    """The same for a given moment."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def default_url() -> str:
    """``$KDO_STORE``, or a SQLite file in the state directory."""
    return os.environ.get("KDO_STORE") or str(state_dir() / "store.db")


def who() -> str:
    """Who runs this: the login behind sudo, if there was one."""
    name = ""
    with suppress(KeyError, OSError):
        name = getpass.getuser()
    behind = os.environ.get("SUDO_USER", "")
    user = f"{behind} as {name}" if behind and behind != name else name or str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def pack(document: Any) -> tuple[str, bytes]:
    """Hash of the canonical bytes, and the bytes compressed."""
    raw = encode(document)
    return sha256(raw).hexdigest(), zlib.compress(raw, 1)


def unpack(body: bytes, hash: str = "") -> bytes:
    """The canonical bytes of a stored document. Raises :class:`StoreError` when they are damaged."""
    try:
        inflater = zlib.decompressobj()
        raw = inflater.decompress(bytes(body), _LIMIT)
    except zlib.error as error:
        raise StoreError("a stored document is damaged", where=hash, why=str(error)) from error
    return raw


class Store:
    """An open store, its tables brought to this version of the tool; ``readonly``: only if they have it already."""

    def __init__(
        self, url: str | None = None, *, create: bool = True, patient: bool = False, readonly: bool = False
    ) -> None:
        self.url = url or default_url()
        self.database: Database = open_database(self.url, create=create, patient=patient, readonly=readonly)
        if readonly:
            check_version(self.database)
        else:
            migrate(self.database, now())

    @property
    def name(self) -> str:
        """For messages."""
        return self.database.name

    def document(self, hash: str, type: type[D]) -> D:
        """A stored document by its hash."""
        rows = self.database.read("SELECT body FROM document WHERE hash = ?", (hash,))
        if not rows:
            raise StoreError("a document is missing", where=hash[:16], why="it was pruned, or the store is damaged")
        return self.decode(rows[0][0], type, hash)

    @staticmethod
    def decode(body: bytes, type: type[D], hash: str = "") -> D:
        """A document from its stored body."""
        try:
            return msgspec.json.decode(unpack(body, hash), type=type)
        except msgspec.MsgspecError as error:
            raise StoreError("a stored document cannot be read", where=hash[:16], why=str(error)) from error

    def close(self) -> None:
        """End the connection."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def put_documents(s: Statements, documents: Iterable[tuple[str, str, bytes]]) -> None:
    """Keep documents: hash, kind, packed body. What is there already is the same."""
    s.many("INSERT INTO document (hash, kind, body) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING", documents)


def marks(values: Sequence[Any]) -> str:
    """``?, ?, ?`` for an IN (…)."""
    return ", ".join("?" * len(values))
