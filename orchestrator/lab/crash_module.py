# SPDX-License-Identifier: Apache-2.0
"""The kernel module that crashes a guest from inside, built for exactly the guest's kernel and kept by content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

from orchestrator.lab.arches import ARCHES
from orchestrator.lab.mirrors import download_options, machine_mirrors
from orchestrator.lab.process import LabError, default_cache, exclusive, run
from orchestrator.lab.spec import ImageSpec

SOURCE: Final = Path(__file__).parent / "module"
MODULE: Final = "kdo_crash.ko"
BUILD_SECONDS: Final = 1800
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+_-]*")


def crash_module(spec: ImageSpec, release: str, cache: Path | None = None) -> Path:
    """Path of the module for the kernel ``release`` (``uname -r``) of a guest of ``spec``; one to two minutes at first.

    Headers and compiler are the guest's own release's, in a tree that is thrown away. Raises :class:`LabError` when
    there are no headers for that kernel.
    """
    if not _RELEASE.fullmatch(release):  # it comes from a guest
        raise LabError("that is no kernel release", where="build the crash module", why=release[:80])
    cache = cache or default_cache()
    content = hashlib.sha256()
    for part in sorted(SOURCE.iterdir()):
        content.update(part.read_bytes())
    home = cache / "modules" / f"{release}-{spec.arch}-{content.hexdigest()[:12]}"
    with exclusive(cache / "locks" / f"module-{home.name}.lock", stage="build the crash module", timeout=BUILD_SECONDS):
        if not (home / MODULE).is_file():
            home.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=home.parent) as temporary:
                Path(temporary).chmod(0o755)  # apt's sandbox user reads below it
                _build(spec, release, Path(temporary))
                built = Path(temporary) / "root/mod" / MODULE
                home.mkdir(exist_ok=True)
                shutil.move(built, home / f".{os.getpid()}")
                (home / f".{os.getpid()}").rename(home / MODULE)
    return home / MODULE


def _build(spec: ImageSpec, release: str, work: Path) -> None:
    root, mirrors = work / "root", machine_mirrors()
    run(
        [
            "mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=directory",
            f"--architectures={ARCHES[spec.arch].debian}", f"--keyring={mirrors.keyring}",
            f"--include=linux-headers-{release},make",
            *(f"--dpkgopt=path-exclude=/usr/share/{tree}/*" for tree in ("doc", "man", "locale")),
            *(f"--aptopt={option}" for option in download_options()),
            spec.suite, root, *mirrors.sources(spec.suite),
        ],
        stage=f"get the headers of {release}", timeout=BUILD_SECONDS,
    )  # fmt: skip
    shutil.copytree(SOURCE, root / "mod")
    run(["chroot", root, "make", "-s", "-C", f"/lib/modules/{release}/build", "M=/mod", "modules"],
        stage="build the crash module", timeout=BUILD_SECONDS)  # fmt: skip
