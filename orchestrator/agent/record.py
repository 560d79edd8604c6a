# SPDX-License-Identifier: Apache-2.0
"""What a host remembers of its bundles: the highest serial, and the bundle itself for a server that says "not changed".

One private file. It is what keeps an old bundle, signed as it is, from being given to the host again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator.agent.bundle import MAX_BUNDLE
from orchestrator.documents.base import FORMAT_VERSION, Document, major, pretty
from orchestrator.errors import InvalidInput, KdoError
from orchestrator.files import read_limited, write_atomically

STATE_DIR = Path("/var/lib/kdump-orchestrator")
_NAME = "pull.json"
_LIMIT = 4 * MAX_BUNDLE  # text in JSON is longer than itself


class PullRecord(Document, frozen=True, kw_only=True):
    """``serial`` 0: no bundle was ever seen. ``rebooted``: hash of what was wanted → when it was rebooted for, UTC."""

    format_version: str = FORMAT_VERSION
    kind: str = "PullRecord"
    serial: int = 0
    fingerprint: str = ""
    source: str = ""
    etag: str = ""
    signature_etag: str = ""
    bundle: str = ""
    signature: str = ""
    at: str = ""
    rebooted: dict[str, str] = msgspec.field(default_factory=dict)


def record_path(state: Path) -> Path:
    """The file itself."""
    return state / _NAME


def recall(state: Path) -> PullRecord:
    """What is remembered. Raises :class:`InvalidInput` when it cannot be read: forgetting would allow an old bundle."""
    path = record_path(state)
    fix = f"look at it; without {path} the next bundle counts as the first, whatever its serial"
    try:
        data = read_limited(path, _LIMIT)
    except FileNotFoundError:
        return PullRecord()
    except OSError as e:
        raise InvalidInput("the record cannot be read", where=str(path), why=e.strerror or str(e), fix=fix) from None
    try:
        found = msgspec.json.decode(data or b"", type=PullRecord)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as e:
        raise InvalidInput("the record is damaged", where=str(path), why=str(e)[:200], fix=fix) from None
    if found.kind != "PullRecord" or major(found.format_version) != major(FORMAT_VERSION):
        raise InvalidInput("the record is of another version", where=str(path), why=found.format_version[:20], fix=fix)
    return found


def remember(state: Path, record: PullRecord) -> None:
    """Write it. Raises :class:`KdoError`."""
    try:
        write_atomically(record_path(state), pretty(record))
    except OSError as e:
        raise _unwritable(state, e) from None


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Only one pull at a time. Makes the directory; writes no file of its own. Raises :class:`KdoError`."""
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise _unwritable(state, e) from None
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise KdoError("another pull is running", where=str(state), fix="wait for it to end") from None
        yield
    finally:
        os.close(folder)


def _unwritable(state: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        "the record of serials cannot be kept",
        where=str(state),
        why=error.strerror or str(error),
        fix="run as root, or give a directory with --state-dir",
    )
