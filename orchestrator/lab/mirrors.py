# SPDX-License-Identifier: Apache-2.0
"""Where Debian packages come from: the mirrors, keyring and download options of this machine's own apt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.lab.process import run

FALLBACK_ARCHIVE: Final = "http://deb.debian.org/debian"
FALLBACK_SECURITY: Final = "http://deb.debian.org/debian-security"
# No longer supported: what the security archive lists of it is not all there any more, the last point release is.
ARCHIVED: Final = ("bullseye",)
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
# A machine that sits behind a proxy, or uses a frozen mirror, says so here; a download must honour it.
CARRIED_OPTIONS: Final = (
    "Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date",
)  # fmt: skip


@dataclass(frozen=True)
class Mirrors:
    """URIs of the main archive and of the security archive, and the keyring (absolute path) that signs both."""

    archive: str = FALLBACK_ARCHIVE
    security: str = FALLBACK_SECURITY
    keyring: str = KEYRING

    def sources(self, suite: str) -> list[str]:
        """One-line apt sources of ``suite``, with its security updates while there are any."""
        options = f"[signed-by={self.keyring}]"
        security = [f"deb {options} {self.security} {suite}-security main"] if suite not in ARCHIVED else []
        return [f"deb {options} {self.archive} {suite} main", *security]


def machine_mirrors(etc_apt: Path = Path("/etc/apt")) -> Mirrors:
    """The Debian mirrors in this machine's apt sources (both formats), each with a public fallback."""
    archive, security, keyring = "", "", ""
    for uri, suites, signed_by in _sources(etc_apt):
        if not re.search(r"/debian(-security)?/?$", uri):
            continue  # a third party's repository
        if any(suite.endswith("-security") for suite in suites):
            security = security or uri
        elif not any(suite.endswith("-backports") for suite in suites):
            archive = archive or uri
        keyring = keyring or (signed_by if Path(signed_by).is_file() else "")
    return Mirrors(archive or FALLBACK_ARCHIVE, security or FALLBACK_SECURITY, keyring or KEYRING)


def _sources(etc_apt: Path) -> Iterator[tuple[str, list[str], str]]:
    """Yield (URI, suites, Signed-By or "") of every enabled binary source."""
    parts = etc_apt / "sources.list.d"
    for path in sorted(parts.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            field = {
                key.strip().lower(): value.strip()
                for key, _, value in (line.partition(":") for line in stanza.splitlines() if line[:1] not in "# \t")
            }
            if "deb" in field.get("types", "").split() and field.get("enabled", "yes").lower() != "no":
                for uri in field.get("uris", "").split():
                    yield uri, field.get("suites", "").split(), field.get("signed-by", "")
    for path in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            match = re.match(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)", line)
            if match:
                signed = re.search(r"signed-by=(\S+)", match[1] or "")
                yield match[2], [match[3]], signed[1] if signed else ""


def download_options() -> list[str]:
    """apt options (``Name "value";``) of this machine that a download needs: proxy and frozen-mirror switches."""
    dump = run(["apt-config", "dump"], stage="read this machine's apt options", timeout=30).stdout
    return [line for line in dump.splitlines() if line.split(" ", 1)[0] in CARRIED_OPTIONS]
