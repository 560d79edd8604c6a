# SPDX-License-Identifier: Apache-2.0
"""One connection to SQLite or PostgreSQL, with the little of SQL that both understand.

Everything is written in whole transactions (:meth:`Database.do`). One that fails because the server went away, or because
another writer holds the file, is tried again as a whole: work must not care how often it begins.
"""

from __future__ import annotations

import os
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from orchestrator.errors import Exit, InvalidInput, KdoError
from orchestrator.resources import how_to_install

T = TypeVar("T")
Row = tuple[Any, ...]

_PATIENCE = 90.0  # seconds for a server that restarts, or a writer that is slow
_AT_ONCE = 3.0  # seconds for the first connection of somebody who waits for the answer
_BUSY = 60.0  # seconds that SQLite itself waits for another writer


class StoreError(KdoError):
    """The store cannot be reached or used; what was done on hosts is not undone by that."""

    exit_code = Exit.UNREACHABLE


class Statements(Protocol):
    """What a piece of work gets: statements inside one transaction."""

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement and return its rows, if it has any."""

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row of values."""

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement and return how many rows it changed."""


class Database(ABC):
    """A connection. ``url``: ``postgresql://…``, or the path of a SQLite file."""

    def __init__(self, url: str, *, readonly: bool = False) -> None:
        self.url = url
        self.name = url
        self.readonly = readonly
        # Work is never lost to a server that restarts; who only reads sits in front of a screen.
        self.patience = _AT_ONCE if readonly else _PATIENCE
        self.words: dict[str, str] = {}  # what the dialect calls things, for migrations

    def do(self, work: Callable[[Statements], T]) -> T:
        """Run the work in one transaction; again, as a whole, when the connection or the lock was lost."""
        deadline = time.monotonic() + self.patience
        pause = 0.05
        while True:
            try:
                with self._transaction() as statements:
                    return work(statements)
            except Exception as error:
                if not self._passing(error) or time.monotonic() > deadline:
                    raise self._problem(error) from error
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
                self._reconnect()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of one query."""
        return self.do(lambda s: s.all(sql, values))

    @abstractmethod
    def stream(self, sql: str, values: Sequence[Any] = (), size: int = 500) -> Iterator[Row]:
        """The rows of one query, few at a time: memory does not grow with their number."""

    @abstractmethod
    def close(self) -> None:
        """End the connection."""

    @abstractmethod
    def exclusive(self, statements: Statements) -> None:
        """Let nobody else migrate, or append to the audit trail, until this transaction ends."""

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Statements]:
        """A context in which statements are one transaction."""

    @abstractmethod
    def _passing(self, error: Exception) -> bool:
        """Whether the same work may go well a moment later."""

    @abstractmethod
    def _reconnect(self) -> None:
        """Make the connection usable again."""

    def _problem(self, error: Exception) -> Exception:
        return error

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self.connection.execute(sql, values).fetchall()

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self.connection.executemany(sql, rows)

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self.connection.execute(sql, values).rowcount


class SqliteDatabase(Database):
    """A file in WAL mode: readers never wait for the writer. The file is private to its user."""

    def __init__(self, path: Path, *, create: bool = True, readonly: bool = False) -> None:
        super().__init__(str(path), readonly=readonly)
        self.words = {"blob": "BLOB", "bytewise": ""}
        self.path = path
        self.connection: sqlite3.Connection | None = None
        if not create and not path.exists():
            raise InvalidInput(
                "nothing is remembered yet", where=str(path), why="there is no store",
                fix="kdo sweep -i INVENTORY, or name another store with --store",
            )  # fmt: skip
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreError("the store cannot be opened", where=str(path), why=error.strerror or str(error),
                             fix="name another place with --store or KDO_STORE") from error  # fmt: skip
        self._reconnect()

    def _reconnect(self) -> None:
        if self.connection is not None:
            self.connection.close()
        try:
            made = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            made.execute("PRAGMA journal_mode=WAL")
            # A host that was changed must still be on record after a power loss.
            made.execute("PRAGMA synchronous=FULL")
            made.execute("PRAGMA foreign_keys=ON")
            made.execute(f"PRAGMA query_only={'ON' if self.readonly else 'OFF'}")
            self.connection = made
        except sqlite3.Error as error:
            raise self._problem(error) from error

    @property
    def _open(self) -> sqlite3.Connection:
        if self.connection is None:
            raise StoreError("the store is closed", where=str(self.path))
        return self.connection

    @contextmanager
    def _transaction(self) -> Iterator[Statements]:
        connection = self._open
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield _Sqlite(connection)
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """The rows of one query; a reader takes no lock."""
        try:
            return self._open.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._problem(error) from error

    def stream(self, sql: str, values: Sequence[Any] = (), size: int = 500) -> Iterator[Row]:
        """The rows of one query, few at a time."""
        cursor = self._open.execute(sql, values)
        cursor.arraysize = size
        yield from cursor

    def exclusive(self, statements: Statements) -> None:
        """Every transaction is the only writer already."""

    def close(self) -> None:
        """End the connection."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _passing(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "busy" in str(error))

    def _problem(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        fix = "give its disk room, or restore it from a copy; hosts are not affected"
        return StoreError("the store cannot be used", where=str(self.path), why=str(error), fix=fix)


class _Postgres:
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        cursor = self.connection.execute(sql.replace("?", "%s"), values)
        return cursor.fetchall() if cursor.description else []

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(sql.replace("?", "%s"), rows)

    def changed(self, sql: str, values: Sequence[Any] = ()) -> int:
        count: int = self.connection.execute(sql.replace("?", "%s"), values).rowcount
        return count


class PostgresDatabase(Database):
    """A PostgreSQL server. Passwords come from ~/.pgpass or a service file, never from the URL."""

    def __init__(self, url: str, patience: float = _AT_ONCE, *, readonly: bool = False) -> None:
        super().__init__(url, readonly=readonly)
        self.words = {"blob": "BYTEA", "bytewise": 'COLLATE "C"'}
        parts = urlsplit(url)
        if parts.password:
            raise InvalidInput(
                "the store's URL holds a password", where="--store",
                why="command lines, environments and histories are read by others",
                fix="put it into ~/.pgpass (mode 0600), and leave it out of the URL",
            )  # fmt: skip
        try:
            import psycopg  # noqa: PLC0415  (only where it is used)
        except ImportError:
            why = "the driver (psycopg) is not installed"
            raise InvalidInput("PostgreSQL cannot be used", where=url, why=why,
                               fix=how_to_install("fleet", "python3-psycopg python3-psycopg-pool")) from None  # fmt: skip
        self.psycopg = psycopg
        self.connection: Any = None
        self._connect(patience)

    def _connect(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                self.connection = self.psycopg.connect(self.url, autocommit=True, connect_timeout=10)
                self.connection.read_only = self.readonly
                return
            except self.psycopg.Error as error:
                if time.monotonic() > deadline or not isinstance(error, self.psycopg.OperationalError):
                    raise self._problem(error) from error
                time.sleep(0.5)

    def _reconnect(self) -> None:
        if self.connection is None or self.connection.closed or self.connection.broken:
            with suppress(Exception):
                self.connection.close()
            self._connect(self.patience)

    @contextmanager
    def _transaction(self) -> Iterator[Statements]:
        if self.connection.closed:
            self._reconnect()
        with self.connection.transaction():
            yield _Postgres(self.connection)

    def stream(self, sql: str, values: Sequence[Any] = (), size: int = 500) -> Iterator[Row]:
        """The rows of one query, few at a time, through a connection of its own (its cursor needs a transaction)."""
        other = PostgresDatabase(
            self.url, self.patience, readonly=self.readonly
        )  # which waits for a server that restarts
        try:
            with other.connection.transaction(), other.connection.cursor(name="kdo") as cursor:
                cursor.itersize = size
                cursor.execute(sql.replace("?", "%s"), values)
                yield from cursor
        except self.psycopg.Error as error:  # rows were handed out already: not again from the beginning
            raise self._problem(error) from error
        finally:
            other.close()

    def exclusive(self, statements: Statements) -> None:
        """One advisory lock of the whole store, until the transaction ends."""
        statements.all("SELECT pg_advisory_xact_lock(7201936)")

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def _passing(self, error: Exception) -> bool:
        errors = self.psycopg.errors
        return isinstance(
            error, (self.psycopg.OperationalError, errors.SerializationFailure, errors.DeadlockDetected)
        ) and not isinstance(error, (errors.DiskFull, errors.InsufficientPrivilege))

    def _problem(self, error: Exception) -> Exception:
        if not isinstance(error, self.psycopg.Error):
            return error
        why = " ".join(str(error).split())[:300]
        return StoreError("the store cannot be used", where=self.url, why=why, fix="try: psql URL -c 'select 1'")


def open_database(url: str, *, create: bool = True, patient: bool = False, readonly: bool = False) -> Database:
    """The database of that URL or path. ``create=False``: a SQLite file that is not there is an error, not made;
    ``patient``: wait for a server that restarts, where nobody sits in front of it; ``readonly``: the database itself
    refuses every change through this connection."""
    if url.startswith(("postgresql://", "postgres://")):
        return PostgresDatabase(url, _PATIENCE if patient else _AT_ONCE, readonly=readonly)
    if "://" in url and not url.startswith("sqlite:///"):
        raise InvalidInput(f"this is no store: {url.split('://', maxsplit=1)[0]}://…", where="--store",
                           fix="give postgresql://HOST/DATABASE, or the path of a file")  # fmt: skip
    return SqliteDatabase(Path(url.removeprefix("sqlite://")).expanduser(), create=create, readonly=readonly)
