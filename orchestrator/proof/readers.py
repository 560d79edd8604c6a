# SPDX-License-Identifier: Apache-2.0
"""A second, independent reader of a vmcore: drgn, which needs no debugging data for this and reads every architecture.

It runs as a process of its own, because a broken dump may never end or take a reader down.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from orchestrator.resources import command_of

SECONDS: Final = 180
LOG_LIMIT: Final = 4 << 20  # bytes of the kernel log that are looked at


def available() -> bool:
    """Whether drgn is installed (the extra ``rehearse``)."""
    return importlib.util.find_spec("drgn") is not None


class CannotRead(Exception):
    """drgn is no witness for this dump; the text says why."""


def by_drgn(core: Path, wanted: str) -> tuple[str, str]:
    """(release of the kernel that the dump is of, what of its log fits the regular expression ``wanted`` or "").

    Raises :class:`CannotRead` where drgn itself cannot read such a dump.
    """
    command = [*command_of(__name__), str(core), wanted]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CannotRead(f"drgn did not end within {SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise CannotRead(f"drgn cannot read it: {said[-1][:200] if said else done.returncode}")
    release, _, found = done.stdout.decode("ascii", "replace").partition("\n")
    return release.strip(), found.strip()


def _read(core: str, wanted: str) -> tuple[str, str]:
    import drgn  # noqa: PLC0415  (an extra)

    program = drgn.Program()
    program.set_core_dump(core)
    # The kernel's own note says where its log is (printk's ring buffer, 5.10 and later), whatever its symbol table lacks.
    info = program["VMCOREINFO"].string_().decode("ascii", "replace")
    noted = dict(line.partition("=")[::2] for line in info.splitlines())
    ring = program.read_u64(int(noted["SYMBOL(prb)"], 16)) + int(noted["OFFSET(printk_ringbuffer.text_data_ring)"])
    size = 1 << program.read_u32(ring + int(noted["OFFSET(prb_data_ring.size_bits)"]))
    address = program.read_u64(ring + int(noted["OFFSET(prb_data_ring.data)"]))
    log = program.read(address, min(size, LOG_LIMIT))
    said = re.search(wanted.encode(), log)
    return noted.get("OSRELEASE", ""), said[0].decode("ascii", "replace") if said else ""


if __name__ == "__main__":
    print(*_read(*sys.argv[1:]), sep="\n")
