# SPDX-License-Identifier: Apache-2.0
"""GRUB with Boot Loader Specification entries (Fedora, RHEL 8 and later): what boots next.

GRUB's blscfg command sorts ``/boot/loader/entries/*.conf`` from the newest to the oldest and boots the one that grubenv
names (``next_entry`` once, else ``saved_entry``, an id or a number), or the first. Arguments may be kept in grubenv
(``$kernelopts``, RHEL 8) and are then read from there. Source: uapi-group.org boot_loader_specification; grub2's
blscfg.c as packaged by Fedora.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.bootloaders.base import NextBoot, Stack
from orchestrator.bootloaders.grub import default_choice
from orchestrator.cmdline import split
from orchestrator.documents.facts import Facts
from orchestrator.versions import Version

_ENTRIES = re.compile(r"/boot(?:/efi)?/loader/entries/([^/]+)\.conf\Z")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")


@dataclass(frozen=True)
class Entry:
    """One entry. ``id`` is the file's name without ``.conf``; ``fields`` as they are written, the last of each counts."""

    id: str
    path: str
    fields: dict[str, str]

    @property
    def title(self) -> str:
        """What the menu shows."""
        return self.fields.get("title", self.id)


def parse(path: str, text: str) -> Entry:
    """One entry file. Several ``options`` lines are one command line, as in the specification."""
    fields: dict[str, str] = {}
    for row in text.splitlines():
        key, _, value = row.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        value = value.strip()
        fields[key] = f"{fields[key]} {value}" if key == "options" and key in fields else value
    m = _ENTRIES.match(path)
    return Entry(m[1] if m else path, path, fields)


def entries(facts: Facts) -> tuple[list[Entry], str]:
    """All entries, newest first, and why they cannot be told (empty if they can)."""
    found = []
    for path, file in facts.files.items():
        if not _ENTRIES.match(path):
            continue
        if file.error or file.text is None:
            return [], f"{path} could not be read: {file.error or 'its text was not read'}"
        found.append(parse(path, file.text))
    if not found:
        return [], "there is no entry in /boot/loader/entries"
    # A rescue entry's version begins with "0-rescue" and so comes last, as it does in the menu.
    return sorted(found, key=lambda e: (Version(e.fields.get("version", e.id)), Version(e.id)), reverse=True), ""


def _choose(found: list[Entry], choice: str) -> Entry:
    if choice.isdigit() and int(choice) < len(found):
        return found[int(choice)]
    return next((e for e in found if choice and choice in (e.id, e.title)), found[0])


def next_boot(facts: Facts) -> NextBoot:
    """The entry that boots next, with its arguments as the kernel will get them."""
    found, why = entries(facts)
    if why:
        return NextBoot(False, why)
    env = facts.boot.grub.env
    choice = env.get("next_entry") or default_choice(facts.boot.grub)
    if "saved_entry" in choice or not facts.boot.grub.lines:
        choice = env.get("saved_entry", "")
    entry = _choose(found, choice)
    missing = [
        m[1] for m in _VARIABLE.finditer(entry.fields.get("options", "")) if m[1] not in env and m[1] != "tuned_params"
    ]
    if missing:
        return NextBoot(False, f"{entry.path} takes arguments from ${missing[0]}, which grubenv does not have")
    options = _VARIABLE.sub(lambda m: env.get(m[1], ""), entry.fields.get("options", ""))
    kernel = entry.fields.get("linux", "")
    name = kernel.rsplit("/", 1)[-1]
    release = name.split("-", 1)[1] if name.startswith(("vmlinuz-", "vmlinux-", "Image-")) else ""
    if not kernel:
        return NextBoot(False, f"{entry.path} names no kernel")
    return NextBoot(True, "", entry.title, kernel, release or entry.fields.get("version", ""), split(options))


class Bls(Stack):
    """GRUB that reads loader entries."""

    place = "/boot/loader/entries"

    def next_boot(self, facts: Facts) -> NextBoot:
        """The entry that boots next, with its arguments as the kernel will get them."""
        return next_boot(facts)
