# SPDX-License-Identifier: Apache-2.0
"""SUSE's boot stacks: what boots next is read from what really boots, and written through SUSE's own tools.

``pbl`` keeps the arguments in the second of GRUB's two variables only, and it replaces one argument of a name. So what
stands in the first one, or more than once, is taken off before. From kdump 2.0.19 on ``kdumptool commandline -u`` is the one
who writes ``crashkernel=``: its service does so at every boot, and it must come to the same result.
Sources: openSUSE/perl-bootloader (include/library, grub2/add-option, systemd-boot/config), openSUSE/kdump kdumptool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import hostside
from orchestrator.bootloaders.base import BootPlan, NextBoot, Stack, gone
from orchestrator.bootloaders.grub import Grub, words
from orchestrator.bootloaders.systemdboot import SystemdBoot
from orchestrator.cmdline import key_of, split, values
from orchestrator.documents.decision import Refusal
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredFile, DesiredState
from orchestrator.versions import compare

_NO_TRIAL = "pbl sets the default only, and kdump 2.0.19 and newer writes it itself at every boot"
_FIRST, _SECOND = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"


def _updates(facts: Facts, data: Mapping[str, Any]) -> bool:
    """Whether kdump itself writes the boot loader; one that a plan installs does."""
    version = (facts.packages or {}).get(data["kdump"]["package"], "")
    return not version or compare(version, data["kdump"]["min"]) >= 0


class PblGrub(Grub):
    """GRUB with a generated menu, whose arguments are set by ``pbl``."""

    trials = ()

    def plan(
        self, facts: Facts, desired: DesiredState, boot: NextBoot, wrong: list[str], data: Mapping[str, Any]
    ) -> BootPlan:
        """kdump's own updater for its arguments, and pbl for the others."""
        if not wrong:
            return BootPlan()
        fact = facts.files.get(data["defaults"])
        loader = facts.files.get(data["loader"])
        if loader is not None and (named := _loader_type(loader.text or "")) not in data["loader_types"]:
            return BootPlan(
                obstacle=_obstacle(data["loader"], f"pbl is set to {named or 'no boot loader'}, not to GRUB")
            )
        try:
            if fact is None or fact.error or fact.text is None or fact.link:
                raise hostside.edit_error()((fact.error if fact else "") or "it is a link, or its text was not read")
            found = hostside.read_assignments(fact.text)
            if bad := next((n for n in (_FIRST, _SECOND) if found.get(n, ("", 0))[0] is None), ""):
                raise hostside.edit_error()(f"{bad} is made by a shell", found[bad][1])
        except hostside.edit_error() as e:
            return BootPlan(obstacle=_obstacle(data["defaults"], str(e)))
        why = "; ".join(wrong)
        own = data["kdump"]["keys"] if desired.enabled and _updates(facts, data) else []
        changes: list[Change] = []
        first, second = (split(found.get(name, ("", 0))[0] or "") for name in (_FIRST, _SECOND))
        keys = [*map(key_of, desired.boot_ensure), *gone(desired)]
        wanted = {k: values([a for a in desired.boot_ensure if key_of(a) == k], k) for k in keys}
        # Also what only the next menu would show: it is made anew.
        differ = [k for k, v in wanted.items() if v != values(boot.arguments, k) or v != values([*first, *second], k)]
        if any(k in own for k in differ):
            step: dict[str, Any] = {"op": "action", "name": "kdump-commandline"}
            changes.append(Change(kind="boot", what="let kdumptool set crashkernel=", why=why, step=step))
        if others := [k for k in differ if k not in own]:
            ensure = [a for a in desired.boot_ensure if key_of(a) in others]
            remove = [k for k in others if k not in map(key_of, ensure)]
            step = {"op": "action", "name": "pbl-arguments", "ensure": ensure, "remove": remove}
            changes.append(Change(kind="boot", what=f"let pbl set {', '.join(others)}", why=why, step=step))
        return BootPlan(changes, [words(desired, data["config"])])

    def files(self, facts: Facts, desired: DesiredState, data: Mapping[str, Any]) -> list[DesiredFile]:
        """None: the tools write the file that the menu is made from."""
        return []

    def no_trial(self, facts: Facts) -> str:
        """There is none on SUSE."""
        return _NO_TRIAL

    def left_over(self, facts: Facts) -> str:
        """Trials are not made here."""
        return ""

    def key(self, facts: Facts) -> Any:
        """The files that arguments are kept in, and which tools are there."""
        found = [facts.files.get(path) for path in ("/etc/default/grub", "/etc/sysconfig/bootloader")]
        files = tuple([(f.text, f.sha256, f.link, f.error) if f is not None else None for f in found])
        return files, (facts.packages or {}).get("kdump")


class PblSystemdBoot(SystemdBoot):
    """systemd-boot on SUSE: pbl writes /etc/kernel/cmdline but no entry, so both are edited as everywhere else."""

    trials = ()

    def no_trial(self, facts: Facts) -> str:
        """There is none on SUSE."""
        return _NO_TRIAL


def _loader_type(text: str) -> str:
    try:
        return hostside.read_assignments(text).get("LOADER_TYPE", ("", 0))[0] or ""
    except hostside.edit_error():
        return ""


def _obstacle(path: str, why: str) -> Refusal:
    fix = "put that file in order by hand, then plan again"
    return Refusal(id="file-unreadable", what=f"{path} cannot be relied on", why=why, fix=fix)


#: Stack by the name that the host's boot stack has.
STACKS: dict[str, Stack] = {"grub": PblGrub(), "systemd-boot": PblSystemdBoot()}
