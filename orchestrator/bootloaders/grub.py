# SPDX-License-Identifier: Apache-2.0
"""GRUB with a generated grub.cfg (grub-mkconfig): what boots next, and the snippet that sets our arguments.

The next boot is read from the generated file, not from ``/etc/default/grub``: an edit that nobody regenerated from
does not boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from orchestrator.bootloaders.base import TRIAL, BootPlan, NextBoot, Stack, gone, try_step
from orchestrator.cmdline import check_safe, key_of, split
from orchestrator.documents.facts import Facts, GrubConfig
from orchestrator.documents.plan import Change, DesiredFile, DesiredState
from orchestrator.edits import file_change

CUSTOM = "/boot/grub/custom.cfg"
SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"
DEFAULTS = "/etc/default/grub"
REPEATS = "GRUB did not clear its choice for one boot, and would repeat it"
_NONE_WANTED = "no kdump is wanted on this host"
_TRIAL_BLOCK = "### BEGIN kdump-orchestrator trial "

_ENTRY = re.compile(r"(menuentry|submenu)\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))")
_ID = re.compile(r"(?:\$menuentry_id_option|--id[= ])\s*'?([^\s'{]+)'?")
_DEFAULT = re.compile(r"set default=\"?([^\"]*)\"?")


@dataclass
class _Entry:
    title: str
    id: str
    submenu: bool = False
    linux: str = ""
    children: list[_Entry] = field(default_factory=list)


def _parse(config: GrubConfig) -> tuple[list[_Entry], str]:
    """The menu as a tree, and the value that ``default`` gets when nothing was set for one boot only."""
    root = _Entry("", "", submenu=True)
    stack: list[_Entry | None] = [root]  # None stands for any other block
    default = "0"
    for text in config.lines:
        if text.startswith(("menuentry", "submenu")) and (m := _ENTRY.match(text)):
            ident = _ID.search(text)
            entry = _Entry(m[2] or m[3] or m[4] or "", ident[1] if ident else "", m[1] == "submenu")
            parent = next(e for e in reversed(stack) if e is not None)
            parent.children.append(entry)
            stack.append(entry)
        elif text == "}":
            if len(stack) > 1:
                stack.pop()
        elif text.startswith(("linux ", "linux\t", "linux16", "linuxefi")):
            current = stack[-1]
            if current is not None and not current.linux:
                current.linux = text
        elif text.startswith("set default") and (m := _DEFAULT.match(text)) and "next_entry" not in m[1]:
            default = m[1]
    return root.children, default


def default_choice(config: GrubConfig) -> str:
    """What grub.cfg sets as the default: a number, an id, a title, or a text with ``saved_entry`` in it."""
    return _parse(config)[1]


def _find(entries: list[_Entry], choice: str) -> _Entry | None:
    """GRUB's rule: a number, an id or a title; ``>`` goes into a submenu."""
    head, _, rest = choice.partition(">")
    found: _Entry | None = None
    if head.isdigit():
        found = entries[int(head)] if int(head) < len(entries) else None
    else:
        found = next((e for e in entries if head and head in (e.id, e.title)), None)
    if found is not None and rest:
        return _find(found.children, rest)
    if found is not None and found.submenu:
        return _find(found.children, "0")
    return found


def chosen_once(facts: Facts) -> str:
    """What GRUB boots next and only then."""
    return facts.boot.grub.env.get("next_entry") or ""


class Grub(Stack):
    """GRUB whose menu is generated from ``/etc/default/grub`` and what lies beside it."""

    place = "grub.cfg"
    trials: tuple[str, ...] = ("grub-trial",)
    repeats = REPEATS

    def next_boot(self, facts: Facts) -> NextBoot:
        """The entry that boots next: a one-shot choice first, then the saved or fixed default."""
        return next_boot(facts)

    def plan(
        self, facts: Facts, desired: DesiredState, boot: NextBoot, wrong: list[str], data: Mapping[str, Any]
    ) -> BootPlan:
        """Our file beside the others where the family has such a directory, else the arguments in the one that it has."""
        (file,) = self.files(facts, desired, data)
        fact = facts.files.get(file.path)
        # The next boot is right without a file of ours: leave it alone.
        change = None if file.text is not None and not wrong and fact is None else file_change(file, fact)
        changes = [change] if change is not None else []
        forgotten = self.left_over(facts)
        if not wrong and not changes and not forgotten:
            return BootPlan()
        why = "; ".join(wrong) or ("its source has changed" if changes else forgotten)
        step = {"op": "action", "name": data["regenerate"]}
        changes.append(Change(kind="boot", what=f"regenerate {PurePosixPath(data['config']).name}", why=why, step=step))
        expect = [words(desired, data["config"])] if wrong or len(changes) > 1 else []
        trial = try_step("grub-trial", desired) if expect and data.get("trial") else {}
        return BootPlan(changes, expect, trial)

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """One file, which sets the keys that are ours."""
        return [_file(desired, data)]

    def no_trial(self, facts: Facts) -> str:
        """GRUB must be able to choose an entry once, and to read one of ours."""
        lines = facts.boot.grub.lines
        if not any(line.startswith("save_env next_entry") for line in lines):
            return "grub.cfg knows no choice for one boot (next_entry)"
        if not any("custom.cfg" in line for line in lines):
            return "grub.cfg does not read custom.cfg (41_custom)"
        if any(line.startswith("blscfg") for line in lines):
            return "grub.cfg takes its entries from elsewhere (blscfg)"
        return self.taken(facts)

    def once(self, facts: Facts) -> str:
        """grubenv's ``next_entry``."""
        return chosen_once(facts)

    def left_over(self, facts: Facts) -> str:
        """A choice of ours that nobody took back, or an entry of ours in custom.cfg."""
        file = facts.files.get(CUSTOM)
        block = file is not None and _TRIAL_BLOCK in (file.text or "")
        entry = f"{CUSTOM} holds the entry of a trial that was never confirmed" if block else ""
        return super().left_over(facts) or entry

    def key(self, facts: Facts) -> Any:
        """The files that arguments are kept in, and what trials depend on."""
        found = [facts.files.get(path) for path in (SNIPPET, DEFAULTS)]
        files = tuple([(f.text, f.sha256, f.mode, f.redacted) if f is not None else None for f in found])
        return files, self.no_trial(facts), self.left_over(facts)


def _file(desired: DesiredState, data: Mapping[str, Any]) -> DesiredFile:
    why = "exactly one crashkernel= remains on the next boot's command line" if desired.enabled else _NONE_WANTED
    if "snippet" in data:
        return DesiredFile(path=data["snippet"], text=snippet(desired.boot_ensure, desired.boot_owned), why=why)
    owned = [*desired.boot_owned, *gone(desired)]
    return DesiredFile(path=data["defaults"], ensure=desired.boot_ensure, remove=owned, why=why)


def words(desired: DesiredState, config: str) -> dict[str, Any]:
    """What every entry of the generated menu must say."""
    keys = [key_of(a) for a in desired.boot_ensure]
    once = {f"{key_of(a)}=": a for a in desired.boot_ensure if "=" in a and keys.count(key_of(a)) == 1}
    present = [a for a in desired.boot_ensure if f"{key_of(a)}=" not in once]
    absent = [word for key in gone(desired) for word in (key, f"{key}=")]
    words = {"kind": "words", "path": config, "line_prefix": "linux", "once": once, "present": present}
    return {**words, "absent": absent}


def next_boot(facts: Facts) -> NextBoot:
    """The entry that boots next: a one-shot choice first, then the saved or fixed default."""
    config = facts.boot.grub
    if not config.path:
        return NextBoot(False, "no grub.cfg was found")
    entries, default = _parse(config)
    once = chosen_once(facts)
    choice = default if once.startswith(TRIAL) or not once else once  # a trial is not what stays
    if "saved_entry" in choice:
        choice = config.env.get("saved_entry") or "0"
    entry = _find(entries, choice)
    if entry is None and entries:  # GRUB falls back to the first entry when the default does not exist
        entry = _find(entries, "0")
    words = split(entry.linux) if entry is not None else []
    if len(words) < 2:
        # A hand-made grub.cfg may boot without any menu.
        plain = [line for line in config.lines if line.startswith(("linux ", "linux\t"))]
        if entries or len(plain) != 1:
            return NextBoot(
                False, f"the default entry {choice!r} of {config.path} has no kernel line that could be read"
            )
        words = split(plain[0])
    kernel = words[1]
    name = kernel.rsplit("/", 1)[-1]
    release = name.split("-", 1)[1] if name.startswith(("vmlinuz-", "vmlinux-")) else ""
    title = entry.title if entry else ""
    return NextBoot(True, title=title, kernel=kernel, release=release, arguments=words[2:])


def snippet(ensure: list[str], owned: list[str]) -> str:
    """Shell text for ``/etc/default/grub.d``: takes every owned key off both command lines, then adds ours once.

    grub-mkconfig sources the files of that directory in order, so ours must sort last; taking the keys off first is
    what leaves exactly one ``crashkernel=`` whatever packages and admins wrote before. The text starts no program:
    the host side refuses a snippet that would.
    """
    patterns = "|".join(f"{check_safe(k)}|{k}=*" for k in sorted(owned))
    arguments = " ".join(check_safe(a) for a in ensure)
    line = 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT${GRUB_CMDLINE_LINUX_DEFAULT:+ }%s"\n'
    added = line % arguments if arguments else ""
    text = """\
# Managed by kdump-orchestrator: what is written here is replaced. It sorts last on purpose: the keys below are taken
# off the command lines that were built so far, then set once.
set -f
"""
    for name in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"):
        text += f"""\
kdo_kept=
for kdo_word in ${name}; do
	case "$kdo_word" in
	{patterns}) ;;
	*) kdo_kept="$kdo_kept${{kdo_kept:+ }}$kdo_word" ;;
	esac
done
{name}="$kdo_kept"
"""
    return f"""\
{text}set +f
unset kdo_kept kdo_word
{added}"""
