# SPDX-License-Identifier: Apache-2.0
"""systemd-boot: entries on the ESP, chosen by EFI variables, then loader.conf, then their order.

kernel-install writes an entry for each new kernel from ``/etc/kernel/cmdline`` where that is, else from the running
kernel's own command line. Source: systemd-boot(7), loader.conf(5), kernel-install(8).
"""

from __future__ import annotations

import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.bootloaders.base import NextBoot
from orchestrator.bootloaders.loader import Entry, Loader, entries
from orchestrator.cmdline import split
from orchestrator.documents.facts import Facts
from orchestrator.versions import Version

_IMAGE = re.compile(r"(?:/boot|/boot/efi|/efi)/EFI/Linux/([^/]+)\.efi\Z")
_BY_HAND = (
    "put the arguments into /etc/kernel/cmdline and build the image anew (kernel-install, ukify), "
    "or into an add-on below EFI/Linux/IMAGE.efi.extra.d; reboot, then plan again"
)
_CONF = ("/boot/efi/loader/loader.conf", "/efi/loader/loader.conf", "/boot/loader/loader.conf")


def _order(entry: Entry) -> tuple[Any, ...]:
    """Entries with a sort-key come first, by it, newest version first; the others by their names, newest first."""
    key = entry.fields.get("sort-key", "")
    return (not key, key, entry.machine if key else "")


def sorted_entries(found: list[Entry]) -> list[Entry]:
    """In the order of the menu."""
    newest = sorted(found, key=lambda e: (Version(e.fields.get("version", e.id)), Version(e.id)), reverse=True)
    return sorted(newest, key=_order)


def _configured(facts: Facts) -> str:
    """``default`` of loader.conf."""
    for path in _CONF:
        file = facts.files.get(path)
        if file is not None and file.text:
            rows = [row.split(None, 1) for row in file.text.splitlines()]
            return next((r[1].strip() for r in rows if len(r) == 2 and r[0] == "default"), "")
    return ""


def _named(found: list[Entry], pattern: str) -> Entry | None:
    pattern = pattern.lower()
    names = (pattern, pattern + ".conf")
    return next((e for e in found if any(fnmatchcase(f"{e.id.lower()}.conf", p) for p in names)), None)


def default_choice(facts: Facts) -> str:
    """The name or pattern that says what boots when nothing was chosen for one boot; empty = the first of the menu."""
    variables = facts.boot.loader
    choice = variables.get("LoaderEntryDefault") or _configured(facts)
    return variables.get("LoaderEntryLastBooted", "") if choice == "@saved" else choice


class SystemdBoot(Loader):
    """systemd-boot with entries of type 1."""

    place = "loader/entries"
    trials: tuple[str, ...] = ("sdboot-trial",)
    repeats = "the choice for one boot is still in the firmware, and would be repeated"

    def once(self, facts: Facts) -> str:
        """The variable ``LoaderEntryOneShot``."""
        return facts.boot.loader.get("LoaderEntryOneShot") or ""

    def next_boot(self, facts: Facts) -> NextBoot:
        """The entry that boots next; for a unified kernel image what to do by hand."""
        boot = super().next_boot(facts)
        return replace(boot, fix=_BY_HAND) if "unified kernel image" in boot.why else boot

    def chosen(self, facts: Facts) -> tuple[Entry | None, list[str], str]:
        """The one-shot choice if it is not ours, else the default, else the first of the menu."""
        images = [path for path in facts.files if _IMAGE.match(path)]
        found, why = entries(facts)
        if why:
            if images:
                why = f"{images[0]} is a unified kernel image: its arguments are built in, or come from its add-ons"
            return None, [], why
        found = sorted_entries(found)
        choice = self.once_by_others(facts) or default_choice(facts)
        if choice.endswith(".efi") or (images and not choice):
            why = "a unified kernel image may boot next: its arguments are built in, or come from its add-ons"
            return None, [], why
        entry = (_named(found, choice) if choice else None) or found[0]
        return entry, split(entry.fields.get("options", "")), ""

    def no_trial(self, facts: Facts) -> str:
        """The firmware must keep variables, and an entry of ours must not come first by itself."""
        if "bootctl" not in facts.boot.tools:
            return "there is no bootctl"
        if "/sys/firmware/efi" not in facts.boot.markers:
            return "the firmware's variables cannot be seen"
        if why := self.taken(facts):
            return why
        entry, _, _ = self.chosen(facts)
        if entry is not None and "sort-key" not in entry.fields and _named([entry], default_choice(facts)) is None:
            return "no entry is named as the default, so another entry could take its place"
        return ""
