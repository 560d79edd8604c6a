# SPDX-License-Identifier: Apache-2.0
"""GRUB with Boot Loader Specification entries (Fedora, RHEL 8 and later).

GRUB's blscfg command sorts ``/boot/loader/entries/*.conf`` from the newest to the oldest and boots the one that grubenv
names (``next_entry`` once, else ``saved_entry``, an id or a number), or the first. Arguments may be kept in grubenv
(``$kernelopts``, RHEL 8) and are then read from there. Source: grub2's blscfg.c as packaged by Fedora.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.bootloaders.grub import REPEATS, chosen_once, default_choice
from orchestrator.bootloaders.loader import Entry, Loader, entries
from orchestrator.cmdline import key_of, split
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredFile, DesiredState

_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")


def _block(facts: Facts) -> str:
    """Path of GRUB's environment block, through the link that lies on /boot where the firmware is EFI."""
    path = posixpath.join(posixpath.dirname(facts.boot.grub.path or "/boot/grub2/grub.cfg"), "grubenv")
    file = facts.files.get(path)
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), file.link)) if file and file.link else path


def _choose(found: list[Entry], choice: str) -> Entry:
    if choice.isdigit() and int(choice) < len(found):
        return found[int(choice)]
    return next((e for e in found if choice and choice in (e.id, e.title)), found[0])


class Bls(Loader):
    """GRUB that reads loader entries."""

    place = "/boot/loader/entries"
    trials = ("bls-trial",)
    repeats = REPEATS

    def once(self, facts: Facts) -> str:
        """grubenv's ``next_entry``."""
        return chosen_once(facts)

    def chosen(self, facts: Facts) -> tuple[Entry | None, list[str], str]:
        """grubenv's choice. A trial of ours is not what stays."""
        found, why = entries(facts)
        if why:
            return None, [], why
        env = facts.boot.grub.env
        choice = self.once_by_others(facts) or default_choice(facts.boot.grub)
        if "saved_entry" in choice or not facts.boot.grub.lines:
            choice = env.get("saved_entry", "")
        entry = _choose(found, choice)
        options = entry.fields.get("options", "")
        missing = [m[1] for m in _VARIABLE.finditer(options) if m[1] not in env and m[1] != "tuned_params"]
        if missing:
            return None, [], f"{entry.path} takes arguments from ${missing[0]}, which grubenv does not have"
        return entry, split(_VARIABLE.sub(lambda m: env.get(m[1], ""), options)), ""

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """As with every loader; what entries take from ``$kernelopts`` is changed in the environment block."""
        out, shared = [], False
        texts = {e.path: e.fields.get("options", "") for e in self.ours(facts)}
        for file in super().files(facts, desired, data):
            through = "kernelopts" in texts.get(file.path, "")
            keys = [*file.remove, *dict.fromkeys(key_of(a) for a in file.ensure)]
            out.append(msgspec.structs.replace(file, ensure=[], remove=keys) if through else file)
            shared = shared or through
        if shared:
            removed = [k for k in desired.boot_owned if k not in map(key_of, desired.boot_ensure)]
            why = "the entries take their arguments from here"
            out.append(DesiredFile(path=_block(facts), ensure=desired.boot_ensure, remove=removed, why=why))
        return out

    def no_trial(self, facts: Facts) -> str:
        """The menu must know a choice for one boot, and the default must be named."""
        lines, env = facts.boot.grub.lines, facts.boot.grub.env
        if not any(line.startswith("save_env next_entry") for line in lines):
            return "grub.cfg knows no choice for one boot (next_entry)"
        saved = env.get("saved_entry") or ""
        if "saved_entry" not in default_choice(facts.boot.grub) or saved not in {e.id for e in entries(facts)[0]}:
            return "no entry is named as the default (saved_entry), so another entry could take its place"
        return self.taken(facts)
