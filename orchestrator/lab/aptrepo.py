# SPDX-License-Identifier: Apache-2.0
"""A small apt repository for guests that have no network: what installing kdump-tools needs and no more.

The guest sees it at :data:`orchestrator.lab.rootfs.GUEST_REPOSITORY`. QEMU's user network starts one
:mod:`orchestrator.lab.aptserve` process for each connection that the guest makes to that address, so no server listens
anywhere on this machine and there is nothing to clean up. (The form of ``guestfwd`` that forwards to a TCP port opens
one connection when QEMU starts, and is of no use after the first client has gone.)
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from orchestrator.lab import aptserve
from orchestrator.lab.layout import DPKG_STATUS
from orchestrator.lab.mirrors import download_options, machine_mirrors
from orchestrator.lab.process import default_cache, exclusive, run
from orchestrator.lab.requirements import require
from orchestrator.lab.spec import Suite

REPOSITORY_VERSION: Final = 1  # raise it when this module changes what a repository contains
GUEST_ADDRESS: Final = "10.0.2.100:80"
# makedumpfile: only recommended, but apt installs it by default, and without it kdump-tools copies all of memory.
WANTED: Final = ("kdump-tools", "makedumpfile")
DOWNLOAD_SECONDS: Final = 900


def build_repository(image: Path, suite: Suite, *, packages: Sequence[str] = WANTED, cache: Path | None = None) -> Path:
    """Return a directory with Packages, Release and the .deb files that ``image`` lacks to install ``packages``.

    ``image`` is a disk of :func:`orchestrator.lab.images.build_image`. Kept in the cache; safe when two builds race.
    Raises :class:`LabError` when a download fails.
    """
    cache = cache or default_cache()
    status = image.parent / DPKG_STATUS
    content = f"{REPOSITORY_VERSION} {suite} {sorted(packages)}\n".encode() + status.read_bytes()
    home = cache / "repositories" / f"{suite}-{hashlib.sha256(content).hexdigest()[:12]}"
    if home.is_dir():
        return home
    require()
    with exclusive(cache / "locks" / f"repository-{home.name}.lock", stage="build apt repository",
                   timeout=2 * DOWNLOAD_SECONDS):  # fmt: skip
        if home.is_dir():
            return home
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{home.name}.", dir=home.parent) as temporary:
            _build(Path(temporary), status, suite, packages).rename(home)
    return home


def guest_forward(repository: Path) -> str:
    """The value of QEMU's ``guestfwd=`` that shows ``repository`` to a guest; commas doubled as QEMU wants them."""
    argv = [sys.executable, "-I", aptserve.__file__, os.fspath(repository.resolve())]
    return f"tcp:{GUEST_ADDRESS}-cmd:{shlex.join(argv).replace(',', ',,')}"


def _build(work: Path, status: Path, suite: Suite, packages: Sequence[str]) -> Path:
    pool = work / "cache" / "archives"
    for directory in (pool / "partial", work / "state" / "lists" / "partial", work / "log", work / "empty"):
        directory.mkdir(parents=True)
    (work / "sources.list").write_text("\n".join(machine_mirrors().sources(suite)) + "\n", encoding="utf-8")
    configuration = work / "apt.conf"
    configuration.write_text(_configuration(work, status), encoding="utf-8")
    # An apt of its own: this machine's packages and settings must not decide what the guest is said to lack.
    env = {"APT_CONFIG": os.fspath(configuration), "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "-q", "update"], stage=f"apt-get update for {suite}", timeout=DOWNLOAD_SECONDS, env=env)
    run(
        ["apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install", *packages],
        stage=f"download {' '.join(packages)} for {suite}",
        timeout=DOWNLOAD_SECONDS,
        env=env,
    )
    repository = work / "repository"
    repository.mkdir(mode=0o755)
    for deb in sorted(pool.glob("*.deb")):
        # apt writes an epoch as %3a in a file name; a client would ask for it decoded.
        deb.rename(repository / deb.name.replace("%3a", "_"))
    for command, name in (("packages", "Packages"), ("release", "Release")):
        index = run(["apt-ftparchive", command, "."], stage=f"write {name}", timeout=120, cwd=repository)
        (repository / name).write_text(index.stdout, encoding="utf-8")
    return repository


def _configuration(work: Path, status: Path) -> str:
    lines = [
        f'Dir "{work}/";',
        'Dir::State "state";',
        f'Dir::State::status "{status.resolve()}";',
        'Dir::Cache "cache";',
        'Dir::Log "log";',
        'Dir::Etc::main "/dev/null";',
        f'Dir::Etc::parts "{work}/empty";',
        f'Dir::Etc::preferencesparts "{work}/empty";',
        f'Dir::Etc::sourceparts "{work}/empty";',
        f'Dir::Etc::sourcelist "{work}/sources.list";',
        'APT::Architecture "amd64";',
        'APT::Architectures { "amd64"; };',
        'APT::Sandbox::User "";',
        'Debug::NoLocking "true";',
        *download_options(),
    ]
    return "\n".join(lines) + "\n"
