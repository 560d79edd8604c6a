# SPDX-License-Identifier: Apache-2.0
"""Small files, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file beside its place and move it there. Whoever reads meanwhile, or after a crash, sees old or new.

    The folder must be there. Raises :class:`OSError`; nothing is left over then.
    """
    number, name = tempfile.mkstemp(prefix=".kdo-", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(name, path)  # noqa: PTH105  (the name is text)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def read_limited(path: Path, limit: int) -> bytes | None:
    """The bytes of an ordinary file, or ``None`` when there are more than ``limit``. Raises :class:`OSError`.

    A fifo or a device is not waited for.
    """
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(number, "rb") as file:
        if not os.path.isfile(f"/proc/self/fd/{number}"):  # noqa: PTH113  (asks the open file, not the name again)
            raise OSError(22, "not an ordinary file")
        data = file.read(limit + 1)
    return data if len(data) <= limit else None
