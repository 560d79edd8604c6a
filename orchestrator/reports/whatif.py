# SPDX-License-Identifier: Apache-2.0
"""A comparison of policies for people: what changes, then how many hosts, then which ones."""

from __future__ import annotations

from orchestrator.crashkernel import format_size
from orchestrator.planning.whatif import Group, Item, WhatIf
from orchestrator.reports.text import line

_CAUSES = ("rule", "overrides", "knowledge")
_STYLE = {"reboot": "bold red", "refused": "bold red", "rebuild": "yellow", "reload": "yellow"}
_NEEDS = {
    "none": "nothing on the host",
    "knob": "a setting that is changed at once",
    "reload": "the capture kernel loaded again",
    "rebuild": "the capture image built and loaded again",
    "reboot": "a reboot",
    "refused": "nothing: refused",
    "audit": "nothing: audit only",
    "unsupported": "nothing: kdo does not change this distribution yet",
}


def compared(found: WhatIf) -> None:
    """Groups, the largest first, and a last line that sums them up."""
    for number, group in enumerate(found.groups, 1):
        _group(number, group)
        line()
    line(_total(found), "bold")


def _count(hosts: int) -> str:
    return f"{hosts} host{'' if hosts == 1 else 's'}"


def _group(number: int, group: Group) -> None:
    pad = " " * (len(str(number)) + 2)
    for index, item in enumerate(group.changes):
        style = "bold" if not index else "dim" if item.what in _CAUSES else ""
        line((pad if index else f"{number}. ") + _item(item), style)
    if group.memory and any(group.memory):
        line(f"{pad}memory set aside: {_grows(*group.memory)} per host")
    line(pad + _steps(group), "" if group.same_steps else _STYLE.get(group.needs, ""))
    more = group.hosts - len(group.names)
    names = ", ".join(group.names) + (f", … and {more} more (--all)" if more else "")
    line(f"{pad}{_count(group.hosts)}: {names}", "cyan")


def _steps(group: Group) -> str:
    off = any(item.what == "kdump wanted" and item.new == "no" for item in group.changes)
    text = "the capture kernel unloaded" if off and group.needs == "reload" else _NEEDS[group.needs]
    if group.needs != group.needed:
        return f"needs {text} (before: {_NEEDS[group.needed]})"
    if not group.same_steps:
        return f"needs {text} as before, but other steps"
    return f"needs {text}" if text.startswith("nothing") else f"needs {text} as before, and no other steps"


def _item(item: Item) -> str:
    if item.what == "refusal":
        return f"refused: {item.new}" if item.new else f"no longer refused: {item.old}"
    if not item.old or not item.new:
        return f"{item.what}: {'-' if item.old else '+'} {item.old or item.new}"
    if " " in item.old + item.new and item.what.startswith(("capture.", "boot.")):
        return f"{item.what}: - {item.old}  + {item.new}"
    return f"{item.what}: {item.old} → {item.new}"


def _signed(size: int) -> str:
    return "nothing" if not size else f"{'+' if size > 0 else '-'}{format_size(abs(size))}"


def _grows(least: int, most: int) -> str:
    return _signed(least) if least == most else f"{_signed(least)} to {_signed(most)}"


def _total(found: WhatIf) -> str:
    old, new = found.old, found.new
    what = f"{old.file} → {new.file}" + ("" if old.knowledge == new.knowledge else ", other knowledge")
    changed = found.hosts - found.unchanged
    if not changed:
        return f"{what}: {_count(found.hosts)}, nothing changes"
    ways = f"{len(found.groups)} way{'' if len(found.groups) == 1 else 's'}"
    reboots = sum(g.hosts for g in found.groups if g.needs == "reboot" and g.needed != "reboot")
    refused = sum(g.hosts for g in found.groups if g.needs == "refused" and g.needed != "refused")
    more = [f"{reboots} need a reboot that they did not need before"] if reboots else []
    more += [f"{refused} are refused now"] if refused else []
    return (
        f"{what}: {_count(found.hosts)}: {changed} {'changes' if changed == 1 else 'change'} in {ways}, {found.unchanged} as before"
        + (": " if more else "")
        + ", ".join(more)
    )
