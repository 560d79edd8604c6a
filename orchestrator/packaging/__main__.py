# SPDX-License-Identifier: Apache-2.0
"""``python -m orchestrator.packaging WHAT FOLDER``: what `make dist`, `make deb`, `make sbom` and `make lock` call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import KdoError
from orchestrator.packaging import debian, dist, lock, sbom
from orchestrator.packaging.tree import root

_MAKERS: dict[str, Callable[[Path, Path], list[Path]]] = {
    "deb": debian.build,
    "dist": dist.build,
    "lock": lock.renew,
    "sbom": sbom.build,
}


def main(arguments: list[str]) -> int:
    """Make one kind of thing below a folder and print the paths."""
    if len(arguments) != 2 or arguments[0] not in _MAKERS:
        sys.stderr.write(f"usage: python -m orchestrator.packaging {'|'.join(_MAKERS)} FOLDER\n")
        return 2
    try:
        made = _MAKERS[arguments[0]](root(), Path(arguments[1]))
    except KdoError as e:
        sys.stderr.write("".join(f"{line}\n" for problem in e.problems for line in problem.lines()))
        return int(e.exit_code)
    sys.stdout.write("".join(f"{path}\n" for path in made))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
