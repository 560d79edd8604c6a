# SPDX-License-Identifier: Apache-2.0
"""GRUB with a generated grub.cfg (grub-mkconfig): what boots next, and the snippet that sets our arguments.

The next boot is read from the generated file, not from ``/etc/default/grub``: an edit that nobody regenerated from
does not boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.bootloaders.base import NextBoot
from orchestrator.cmdline import check_safe, key_of, split, values
from orchestrator.documents.facts import Facts, GrubConfig

STEP = "grub-regenerate"
CONFIG = "/boot/grub/grub.cfg"
CUSTOM = "/boot/grub/custom.cfg"
_TRIAL = "kdump-orchestrator-trial-"  # how the host side names the entry of a trial
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


def next_boot(facts: Facts) -> NextBoot:
    """The entry that boots next: a one-shot choice first, then the saved or fixed default."""
    config = facts.boot.grub
    if not config.path:
        return NextBoot(False, "no grub.cfg was found")
    entries, default = _parse(config)
    once = config.env.get("next_entry") or ""
    choice = default if once.startswith(_TRIAL) or not once else once  # a trial is not what stays
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
    return NextBoot(True, "", entry.title if entry else "", kernel, release, words[2:])


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


def trial_step(words: Mapping[str, Any]) -> dict[str, Any]:
    """The step that tries arguments for one boot, from what is expected of grub.cfg once they are the default."""
    ensure = [*words.get("once", {}).values(), *words.get("present", [])]
    remove = [word for word in words.get("absent", []) if not word.endswith("=")]
    return {"op": "action", "name": "grub-trial", "ensure": ensure, "remove": remove}


def no_trial(facts: Facts) -> str:
    """Why arguments cannot be tried for one boot, as far as it can be seen from here; the host looks at the rest."""
    lines, env = facts.boot.grub.lines, facts.boot.grub.env
    if not any(line.startswith("save_env next_entry") for line in lines):
        return "grub.cfg knows no choice for one boot (next_entry)"
    if not any("custom.cfg" in line for line in lines):
        return "grub.cfg does not read custom.cfg (41_custom)"
    if any(line.startswith("blscfg") for line in lines):
        return "grub.cfg takes its entries from elsewhere (blscfg)"
    once = env.get("next_entry") or ""
    if once and not once.startswith(_TRIAL):
        return "somebody has already chosen an entry for the next boot"
    return ""


def left_over(facts: Facts) -> str:
    """What a trial left that was neither confirmed nor rolled back; empty if nothing (or if it cannot be seen)."""
    if (facts.boot.grub.env.get("next_entry") or "").startswith(_TRIAL):
        return "boot arguments on trial are chosen for the next boot"
    file = facts.files.get(CUSTOM)
    if file is not None and _TRIAL_BLOCK in (file.text or ""):
        return f"{CUSTOM} holds the entry of a trial that was never confirmed"
    return ""


def trial_problem(step: Mapping[str, Any], facts: Facts) -> str:
    """Why the host does not run the trial as it should; empty if it does."""
    if (facts.boot.grub.env.get("next_entry") or "").startswith(_TRIAL):
        return "GRUB did not clear its choice for one boot, and would repeat it"
    wanted: dict[str, list[str]] = {key_of(word): [] for word in step["remove"]}
    for argument in step["ensure"]:
        wanted.setdefault(key_of(argument), [])
    for argument in step["ensure"]:
        wanted[key_of(argument)].append(argument.partition("=")[2])
    for key, there in wanted.items():
        if values(facts.kernel.cmdline, key) != there:
            have = " ".join(f"{key}={v}" if v else key for v in values(facts.kernel.cmdline, key)) or f"no {key}"
            return f"the running kernel has {have}: it was not started from the trial entry"
    return ""
