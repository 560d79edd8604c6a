# SPDX-License-Identifier: Apache-2.0
"""zipl on s390x: entries in /boot/loader/entries (RHEL, Fedora) or sections of /etc/zipl.conf (Debian, SLES).

What boots is what ``zipl`` wrote into the boot record the last time it ran, so the next boot is the file's only as far
as nobody changed it since; ``zipl`` is run after every change. Source: zipl(8), zipl.conf(5) of s390-tools.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from orchestrator.bootloaders.loader import Entry, Loader, entries
from orchestrator.cmdline import key_of, split
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredFile, DesiredState

CONFIG = "/etc/zipl.conf"
_SECTION = re.compile(r"\[([^\]]+)\]")
_VALUE = re.compile(r"([A-Za-z]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|(.*))\Z")


def sections(text: str) -> dict[str, dict[str, str]]:
    """Section → its values; a menu's own section begins with a colon."""
    out: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        row = line.strip()
        if row.startswith("#") or not row:
            continue
        if m := _SECTION.match(row):
            current = out.setdefault(m[1], {})
        elif row.startswith(":"):
            current = out.setdefault(row, {})
        elif m := _VALUE.match(row):
            current[m[1]] = next((part for part in m.groups()[1:] if part is not None), "").strip()
    return out


class Zipl(Loader):
    """zipl, which must run after every change."""

    place = CONFIG
    settle = "zipl"

    def chosen(self, facts: Facts) -> tuple[Entry | None, list[str], str]:
        """The default section of zipl.conf, or the newest entry where it has none."""
        file = facts.files.get(CONFIG)
        if file is None or file.error or file.text is None:
            return None, [], f"{CONFIG} could not be read"
        found = sections(file.text)
        default = found.get("defaultboot", {}).get("default", "")
        section = found.get(default)
        if section is not None and "parameters" in section:
            fields = {"linux": section.get("image", ""), "title": default}
            return Entry(default, CONFIG, fields), split(section["parameters"]), ""
        known, why = entries(facts)
        if why:
            return None, [], f"{CONFIG} has no default section with parameters, and {why}"
        return known[0], split(known[0].fields.get("options", "")), ""

    def ours(self, facts: Facts) -> list[Entry]:
        """Entries, where zipl reads them."""
        chosen, _, _ = self.chosen(facts)
        return [] if chosen is None or chosen.path == CONFIG else super().ours(facts)

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """The entries, or every section of zipl.conf."""
        found = super().files(facts, desired, data)
        chosen, _, _ = self.chosen(facts)
        if chosen is not None and chosen.path == CONFIG:
            removed = [k for k in desired.boot_owned if k not in map(key_of, desired.boot_ensure)]
            why = "exactly one crashkernel= remains in every section"
            found.append(DesiredFile(path=CONFIG, ensure=desired.boot_ensure, remove=removed, why=why))
        return found

    def no_trial(self, facts: Facts) -> str:
        """There is none."""
        return "zipl has no choice for one boot that undoes itself"
