# SPDX-License-Identifier: Apache-2.0
"""Boot Loader Specification entries, whoever reads them: GRUB's blscfg, systemd-boot, zipl.

The entries themselves are changed, every one of this system's kernels, and the files from which the next kernel's entry
is made. Rescue entries, other systems' entries and unified kernel images stay as they are.
Source: https://uapi-group.org/specifications/specs/boot_loader_specification/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator import hostside
from orchestrator.bootloaders.base import TRIAL, BootPlan, NextBoot, Stack, gone, try_step
from orchestrator.cmdline import key_of, values
from orchestrator.documents.decision import Refusal
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredFile, DesiredState
from orchestrator.edits import file_change
from orchestrator.versions import Version

ENTRIES = re.compile(r"(?:/boot|/boot/efi|/efi)/loader/entries/([^/]+)\.conf\Z")
_MACHINE = re.compile(r"([0-9a-f]{32})-")
_SOURCES = ("/etc/kernel/cmdline", "/etc/default/grub")
_WHY = "exactly one crashkernel= remains on the command line of every kernel"


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

    @property
    def machine(self) -> str:
        """The machine id that its system has; empty where it does not say."""
        m = _MACHINE.match(self.id)
        return self.fields.get("machine-id", "") or (m[1] if m else "")

    @property
    def rescue(self) -> bool:
        """An entry that is to stay as it was installed."""
        return "0-rescue" in self.id or self.fields.get("version", "").startswith("0-rescue")


def parse(path: str, text: str) -> Entry:
    """One entry file. Several ``options`` lines are one command line, as in the specification."""
    fields: dict[str, str] = {}
    for row in text.splitlines():
        key, _, value = row.strip().replace("\t", " ").partition(" ")
        if not key or key.startswith("#"):
            continue
        value = value.strip()
        fields[key] = f"{fields[key]} {value}" if key == "options" and key in fields else value
    m = ENTRIES.match(path)
    return Entry(m[1] if m else path, path, fields)


def entries(facts: Facts) -> tuple[list[Entry], str]:
    """All entries but those of trials, newest version first, and why they cannot be told (empty if they can)."""
    found = []
    for path, file in facts.files.items():
        m = ENTRIES.match(path)
        if not m or m[1].startswith(TRIAL):
            continue
        if file.error or file.text is None:
            return [], f"{path} could not be read: {file.error or 'its text was not read'}"
        found.append(parse(path, file.text))
    if not found:
        return [], "there is no entry in loader/entries"
    # A rescue entry's version begins with "0-rescue" and so comes last, as it does in the menu.
    return sorted(found, key=lambda e: (Version(e.fields.get("version", e.id)), Version(e.id)), reverse=True), ""


def boot_of(entry: Entry, arguments: list[str]) -> NextBoot:
    """What an entry boots."""
    kernel = entry.fields.get("linux", "")
    if not kernel:
        return NextBoot(False, f"{entry.path} names no kernel")
    name = kernel.rsplit("/", 1)[-1]
    release = name.split("-", 1)[1] if name.startswith(("vmlinuz-", "vmlinux-", "Image-")) else ""
    release = release or entry.fields.get("version", "")
    return NextBoot(True, title=entry.title, kernel=kernel, release=release, arguments=arguments)


class Loader(Stack):
    """What the stacks with entries have in common; each says for itself what boots next."""

    place = "loader/entries"
    settle = "loader-settle"

    def chosen(self, facts: Facts) -> tuple[Entry | None, list[str], str]:
        """The entry that boots next, its arguments as the kernel will get them, and why it cannot be told."""
        raise NotImplementedError

    def next_boot(self, facts: Facts) -> NextBoot:
        """The entry that boots next, with its arguments as the kernel will get them."""
        entry, arguments, why = self.chosen(facts)
        return NextBoot(False, why) if entry is None else boot_of(entry, arguments)

    def ours(self, facts: Facts) -> list[Entry]:
        """The entries of this system's kernels, without those that are to stay as they are."""
        chosen, arguments, _ = self.chosen(facts)
        if chosen is None:
            return []
        root = values(arguments, "root")
        found = []
        for entry in entries(facts)[0]:
            options = entry.fields.get("options", "")
            same_root = "$" in options or values(options, "root") == root
            if not entry.rescue and entry.machine == chosen.machine and same_root and "linux" in entry.fields:
                found.append(entry)
        return found

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """Every entry of this system, and what new kernels' entries are made from."""
        removed = [k for k in (*desired.boot_owned, *gone(desired)) if k not in map(key_of, desired.boot_ensure)]
        sources = [path for path in _SOURCES if path in facts.files]
        return [
            DesiredFile(path=path, ensure=desired.boot_ensure, remove=removed, why=_WHY)
            for path in (*(e.path for e in self.ours(facts)), *sources)
        ]

    def plan(
        self, facts: Facts, desired: DesiredState, boot: NextBoot, wrong: list[str], data: Mapping[str, Any]
    ) -> BootPlan:
        """One edit for each file that is not as wanted."""
        changes = []
        for file in self.files(facts, desired, data):
            fact = facts.files.get(file.path)
            try:
                if fact is None or fact.error or fact.text is None or fact.link:
                    raise hostside.edit_error()(
                        (fact.error if fact else "") or "it is a link, or its text was not read"
                    )
                change = file_change(file, fact)
            except hostside.edit_error() as e:
                return BootPlan(obstacle=_unreadable(file.path, str(e)))
            if change is not None:
                changes.append(change)
        forgotten = self.left_over(facts)
        if not changes and not forgotten:
            return BootPlan()
        why = "; ".join(wrong) or forgotten or "further kernels, or what their entries are made from, lack them"
        step = {"op": "action", "name": self.settle}
        trial = try_step(self.trials[0], desired) if changes and wrong and self.trials else {}
        changes.append(Change(kind="boot", what="look whether the boot loader takes them", why=why, step=step))
        return BootPlan(changes, [], trial)

    def left_over(self, facts: Facts) -> str:
        """Also the entry of a trial that is still there."""
        ours = [path for path in facts.files if (m := ENTRIES.match(path)) and m[1].startswith(TRIAL)]
        entry = f"{ours[0]} is the entry of a trial that was never confirmed" if ours else ""
        return super().left_over(facts) or entry

    def key(self, facts: Facts) -> Any:
        """Every entry and source with its content, and what trials depend on."""
        files = tuple(
            (path, f.sha256, f.text, f.link, f.error)
            for path, f in facts.files.items()
            if ENTRIES.match(path) or path in _SOURCES or path.endswith(("/grubenv", "/zipl.conf"))
        )
        return files, self.no_trial(facts), self.left_over(facts)


def _unreadable(path: str, why: str) -> Refusal:
    fix = "put that file in order by hand, then plan again"
    return Refusal(id="file-unreadable", what=f"{path} cannot be edited safely", why=why, fix=fix)
