# SPDX-License-Identifier: Apache-2.0
"""``make demo``: the main job on this very machine, read-only, through the same commands that a user types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orchestrator.fleet.runner import run_directory


def _kdo(*arguments: str, quiet: bool = False) -> int:
    command = [sys.executable, "-m", "orchestrator", *arguments]
    if not quiet:
        print(f"\n$ kdo {' '.join(arguments)}", flush=True)
    return subprocess.run(command, check=False).returncode


def main() -> int:
    """Detect once, then explain and plan from these facts. Returns 1 only if something that should work does not."""
    with run_directory() as directory:
        facts = Path(directory) / "facts.json"
        print("$ kdo detect --format json > facts.json", flush=True)
        with facts.open("wb") as file:
            code = subprocess.run(
                [sys.executable, "-m", "orchestrator", "detect", "--format", "json"], stdout=file, check=False
            ).returncode
        if code:
            return 1
        for verb in ("detect", "explain", "plan"):
            if _kdo(verb, "--facts", str(facts)) not in (0, 2):
                return 1
    print("\nNothing was changed. Next: docs/getting-started.md, or `kdo plan -i INVENTORY` for your own hosts.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
