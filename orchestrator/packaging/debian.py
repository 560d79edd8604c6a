# SPDX-License-Identifier: Apache-2.0
"""The Debian package: what the wheel has, in the places where Debian's own tools look; the same tree gives the same bytes.

The code lies in a directory of its own, outside Python's path: `orchestrator` is no name to take there. Units are put in
place and nothing else is done with them. What the package needs comes from the distribution: Debian 13 has all of it,
Debian 12 lacks msgspec and has an Ansible that is too old. dpkg-deb does the packing, nothing else of Debian's is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import tomllib
from hashlib import md5
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from orchestrator import __version__
from orchestrator.errors import KdoError
from orchestrator.packaging import dist
from orchestrator.packaging.debian_files import PACKAGE, Shipped, shipped
from orchestrator.packaging.tree import VARIABLE, moment

#: Python package → Debian package, of everything that pyproject.toml asks for.
NAMES: Final = {
    "ansible-core": "ansible-core",
    "ansible-runner": "python3-ansible-runner",
    "click": "python3-click",
    "Jinja2": "python3-jinja2",
    "jsonschema": "python3-jsonschema",
    "msgspec": "python3-msgspec",
    "pyudev": "python3-pyudev",
    "PyYAML": "python3-yaml",
    "rich": "python3-rich",
}
#: The same of the extras; what Debian 13 does not have is None.
EXTRAS: Final = {
    "Pillow": "python3-pil",
    "drgn": "python3-drgn",
    "asyncssh": "python3-asyncssh",
    "psycopg": "python3-psycopg-pool",
    "procrastinate": None,
    "litestar": None,
    "uvicorn": "uvicorn",
}
#: Units that run all the time, and can be started anew at any moment.
LASTING: Final = ("kdo-watch.service",)
MAINTAINER: Final = "kdump-orchestrator contributors <maintainers@kdump-orchestrator.invalid>"
_CONTROL: Final = """\
Package: {package}
Version: {version}
Architecture: all
Maintainer: {maintainer}
Installed-Size: {size}
Depends: {depends}
Recommends: openssh-client
Suggests: {suggests}
Section: admin
Priority: optional
Description: make kernel crash dumps work on every host of a fleet
 When a kernel panics, the dump survives only if somebody cleans up what the
 platform left behind before the capture kernel needs it: panic notifiers, the
 kernel's own crash handler, or the capture kernel itself. Which of them is
 right, useless or fatal depends on architecture, hypervisor and kernel.
 .
 kdo finds out on each host, decides with reasons and sources, shows the
 difference, applies it as a transaction through Ansible, and validates it. It
 can rehearse a crash in a disposable guest, watch a host, and let hosts pull a
 signed policy.
"""
# A process that goes on after an upgrade would load the rest of itself from the new files: what runs all the time is started
# anew, if it runs. What works through something (pull, enforce, a worker) is left to end it.
_POSTINST: Final = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if command -v py3compile >/dev/null; then
        py3compile -p {package} /usr/share/{package}
    fi
    if [ -z "${{DPKG_ROOT:-}}" ] && [ -d /run/systemd/system ]; then
        systemctl --system daemon-reload >/dev/null || true
        if [ -n "$2" ]; then
            systemctl --system try-restart {lasting} >/dev/null || true
        fi
    fi
fi
"""
# A unit that runs is stopped when the package goes; what was enabled by hand would only point to nothing then.
_PRERM: Final = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "${{DPKG_ROOT:-}}" ]; then
    if [ -d /run/systemd/system ]; then
        systemctl --system stop {timers} {services} {patterns} >/dev/null 2>&1 || true
        systemctl --system reset-failed {timers} {services} {patterns} >/dev/null 2>&1 || true
    fi
    systemctl --system --no-reload disable {enabled} >/dev/null 2>&1 || true
fi
if command -v py3clean >/dev/null; then
    py3clean -p {package}
else
    find /usr/share/{package} -type d -name __pycache__ -prune -exec rm -rf {{}} +
fi
"""
_POSTRM: Final = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -z "${{DPKG_ROOT:-}}" ] && [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
"""


def build(top: Path, folder: Path) -> list[Path]:
    """Build the package of ``top`` into ``folder``. Raises :class:`KdoError`."""
    program = shutil.which("dpkg-deb")
    if program is None:
        raise KdoError("the Debian package cannot be built", why="dpkg-deb is not installed", fix="build it on Debian")
    seconds = moment(top)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{PACKAGE}_{__version__}_all.deb"
    with tempfile.TemporaryDirectory() as place:
        files = shipped(top, dist.wheel(top, Path(place) / "dist"), MAINTAINER, seconds)
        tree = Path(place) / "tree"
        _lay_out(tree, files, control(top, files), seconds)
        # One thread: with several, xz cuts the data into blocks by the number of processors.
        command = [program, "--root-owner-group", "-Zxz", "--threads-max=1", "--build", os.fspath(tree), os.fspath(target)]  # fmt: skip
        env = {**os.environ, VARIABLE: str(seconds), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            why = (done.stdout + done.stderr).strip()[-1000:]
            raise KdoError("the Debian package cannot be built", where=str(target), why=why)
    target.chmod(0o644)
    return [target]


def control(top: Path, files: list[Shipped]) -> dict[str, str]:
    """Name → text of what dpkg reads: control, md5sums and the maintainer's scripts."""
    units = [Path(f.path).name for f in files if f.path.startswith("usr/lib/systemd/system/")]
    plain = [u for u in units if "@" not in u]
    words = {
        "package": PACKAGE,
        "lasting": " ".join(u for u in plain if u in LASTING),
        "timers": " ".join(u for u in plain if u.endswith(".timer")),
        "services": " ".join(u for u in plain if u.endswith(".service")),
        "patterns": " ".join(f"'{u.replace('@.', '@*.')}'" for u in units if "@" in u),
        "enabled": " ".join(u for u in units if any(f.path.endswith(f"/{u}") and b"[Install]" in f.data for f in files)),
    }  # fmt: skip
    size = sum(-(-len(f.data) // 1024) for f in files) + len({Path(f.path).parent for f in files})
    return {
        "control": _CONTROL.format(
            package=PACKAGE, version=__version__, maintainer=MAINTAINER, size=size,
            depends=", ".join(depends(top)), suggests=", ".join(sorted({n for n in EXTRAS.values() if n} - {"uvicorn"})),
        ),
        "md5sums": "".join(f"{md5(f.data, usedforsecurity=False).hexdigest()}  {f.path}\n" for f in files if not f.link),
        "postinst": _POSTINST.format(**words),
        "prerm": _PRERM.format(**words),
        "postrm": _POSTRM.format(**words),
    }  # fmt: skip


def depends(top: Path) -> list[str]:
    """What has to be installed, with the lower bounds of pyproject.toml."""
    project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = [f"python3 (>= {project['requires-python'].removeprefix('>=')})"]
    for wanted in map(Requirement, project["dependencies"]):
        (bound,) = wanted.specifier
        # ~: a release candidate or a security upload of that very version will do.
        out.append(f"{NAMES[wanted.name]} (>= {bound.version}~)")
    return out


def _lay_out(tree: Path, files: list[Shipped], scripts: dict[str, str], seconds: int) -> None:
    everything = [*files, *(Shipped(f"DEBIAN/{n}", t.encode(), 0o644 if n in ("control", "md5sums") else 0o755)
                            for n, t in scripts.items())]  # fmt: skip
    for file in everything:
        path = tree / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            path.symlink_to(os.path.relpath(file.link, f"/{Path(file.path).parent}"))
            continue
        path.write_bytes(file.data)
        path.chmod(file.mode)
    (tree / "etc" / PACKAGE).mkdir(parents=True)
    for path in sorted([tree, *tree.rglob("*")], reverse=True):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (seconds, seconds), follow_symlinks=False)
