# SPDX-License-Identifier: Apache-2.0
"""The files of the Debian package: code and data from the wheel, and what is made for this system: pages, completions, units."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Final

from click.shell_completion import get_completion_class

from orchestrator import __version__
from orchestrator.agent.services import units
from orchestrator.cli.completion import SHELLS
from orchestrator.cli.main import cli
from orchestrator.errors import KdoError
from orchestrator.manpages import pages

PACKAGE: Final = "kdump-orchestrator"
HOME: Final = f"usr/share/{PACKAGE}"
DOC: Final = f"usr/share/doc/{PACKAGE}"
KDO: Final = "/usr/bin/kdo"
_COMPLETIONS: Final = {
    "bash": "usr/share/bash-completion/completions/kdo",
    "zsh": "usr/share/zsh/vendor-completions/_kdo",
    "fish": "usr/share/fish/vendor_completions.d/kdo.fish",
}
_COMMAND: Final = f"""\
#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
import sys

sys.path[0] = "/{HOME}"

from orchestrator.__main__ import main

main()
"""
_COPYRIGHT: Final = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {package}
Upstream-Contact: {maintainer}
Comment: Every file names its licence in its first lines.

Files: *
Copyright: 2026 kdump-orchestrator contributors
License: Apache-2.0

Files: {playbooks}
Copyright: 2026 kdump-orchestrator contributors
License: GPL-3.0-or-later
Comment: What Ansible loads into itself: playbooks, their tasks, modules and plugins.
 The module_utils beside them are Apache-2.0.

License: Apache-2.0
 On Debian systems the full text of the Apache License, Version 2.0, can be
 found in /usr/share/common-licenses/Apache-2.0.

License: GPL-3.0-or-later
 This program is free software: you can redistribute it and/or modify it under
 the terms of the GNU General Public License as published by the Free Software
 Foundation, either version 3 of the License, or (at your option) any later
 version.
 .
 On Debian systems the full text of the GNU General Public License, version 3,
 can be found in /usr/share/common-licenses/GPL-3.
"""
#: Units of verbs for which Debian lacks what they need (litestar).
_NOT_IN_DEBIAN: Final = ("kdo-serve.service",)
_ELSEWHERE: Final = {
    "orchestrator/_data/LICENSE": "/usr/share/common-licenses/Apache-2.0",
    "orchestrator/_data/LICENSES/Apache-2.0.txt": "/usr/share/common-licenses/Apache-2.0",
    "orchestrator/_data/LICENSES/GPL-3.0-or-later.txt": "/usr/share/common-licenses/GPL-3",
}
#: Why lintian may say what it says.
_OVERRIDES: Final = f"""\
# Ansible puts the host's own Python there: its documentation asks for this very line in modules.
{PACKAGE}: unusual-interpreter /usr/bin/python [usr/share/{PACKAGE}/orchestrator/_data/playbooks/library/*]
# Units are not enabled by this package, so none of Debian's helpers knows what an administrator has enabled or started.
{PACKAGE}: maintainer-script-calls-systemctl [postinst:*]
{PACKAGE}: maintainer-script-calls-systemctl [prerm:*]
"""
_CHANGELOG: Final = """\
{package} ({version}) unstable; urgency=medium

  * Made by the project itself, from the source tree; what has changed in it
    is told in NEWS.md.gz.

 -- {maintainer}  {date}
"""


@dataclass(frozen=True)
class Shipped:
    """One file of the package, or a symbolic ``link``; ``path`` is relative to the root."""

    path: str
    data: bytes
    mode: int = 0o644
    link: str = ""


def shipped(top: Path, wheel: Path, maintainer: str, seconds: int) -> list[Shipped]:
    """All of them, sorted by path."""
    code = list(_from_wheel(wheel))
    return sorted([*code, *_for_the_system(), *_documents(top, code, maintainer, seconds)], key=lambda f: f.path)


def _from_wheel(wheel: Path) -> Iterator[Shipped]:
    """As a wheel has it, so `orchestrator.resources` finds its data; the makers of packages stay at home.

    Licences are Debian's own copies, and documents are where documents are: links lead there.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name in _ELSEWHERE:
                yield Shipped(f"{HOME}/{name}", b"", link=_ELSEWHERE[name])
            elif name.startswith("orchestrator/") and not name.startswith("orchestrator/packaging/"):
                yield Shipped(f"{HOME}/{name}", archive.read(name))


def _for_the_system() -> Iterator[Shipped]:
    yield Shipped(KDO.lstrip("/"), _COMMAND.encode(), 0o755)
    for name, text in pages():
        yield Shipped(f"usr/share/man/man1/{name}.gz", _compressed(text))
    for shell in SHELLS:
        found = get_completion_class(shell)
        if found is None:
            raise KdoError(f"this click knows no {shell}", fix="make .venv/.ready")
        script = found(cli, {}, "kdo", "_KDO_COMPLETE")
        yield Shipped(_COMPLETIONS[shell], (script.source_template % script.source_vars()).encode())
    yield Shipped(f"usr/share/lintian/overrides/{PACKAGE}", _OVERRIDES.encode())
    for unit in units().values():
        if unit.name in _NOT_IN_DEBIAN:
            continue
        yield Shipped(f"usr/lib/systemd/system/{unit.name}", unit.text(KDO).encode())


def _documents(top: Path, code: list[Shipped], maintainer: str, seconds: int) -> Iterator[Shipped]:
    """Copyright and changelog as Debian wants them, and the project's own pages with their pictures."""
    ours = sorted(f.path for f in code if f.path.startswith(f"{HOME}/orchestrator/_data/playbooks/") and b"GPL-3.0-or-later" in f.data[:300])  # fmt: skip
    words = {"package": PACKAGE, "version": __version__, "maintainer": maintainer}
    yield Shipped(f"{DOC}/copyright", _COPYRIGHT.format(playbooks="\n ".join(ours), **words).encode())
    date = format_datetime(datetime.fromtimestamp(seconds, UTC))
    yield Shipped(f"{DOC}/changelog.gz", _compressed(_CHANGELOG.format(date=date, **words)))
    yield Shipped(f"{DOC}/NEWS.md.gz", _compressed((top / "CHANGELOG.md").read_text(encoding="utf-8")))
    yield Shipped(f"{DOC}/README.md", (top / "README.md").read_bytes())
    for path in sorted((top / "docs").rglob("*")):
        if path.suffix in (".md", ".svg", ".png"):
            yield Shipped(f"{DOC}/{path.relative_to(top)}", path.read_bytes())
    for path in sorted((top / "examples").rglob("*")):
        if path.is_file():
            yield Shipped(f"{DOC}/{path.relative_to(top)}", path.read_bytes())


def _compressed(text: str) -> bytes:
    return gzip.compress(text.encode(), 9, mtime=0)
