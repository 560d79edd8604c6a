# SPDX-License-Identifier: Apache-2.0
"""The parts of a host's plan: files and boot configuration, image, service, reload; each from wanted and present state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from orchestrator.bootloaders.base import BootPlan, NextBoot, Stack
from orchestrator.cmdline import values
from orchestrator.crashkernel import format_size
from orchestrator.distros.base import Capture
from orchestrator.distros.debian import valid_release
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredState, HostPlan
from orchestrator.edits import file_change
from orchestrator.planning.rows import NOTIFIERS, missing, wanted_values
from orchestrator.services import is_masked, is_there, service_of

# A running reservation may be this much off the wanted one (bytes) without asking for a reboot: kernels align it.
_SHORT, _LONG = 4 << 20, 16 << 20
_ACTIONS = ("none", "knob", "reload", "rebuild", "reboot")
_LOADED = "/sys/kernel/kexec_crash_loaded"
NO_TRIAL = "the new boot arguments cannot be tried for one boot"


def files_and_boot(
    facts: Facts, desired: DesiredState, boot: NextBoot, stack: Stack, data: Mapping[str, Any]
) -> tuple[list[Change], BootPlan]:
    """Changes of files, and what the boot stack makes of the wanted arguments."""
    changes = [c for file in desired.files if (c := file_change(file, facts.files.get(file.path))) is not None]
    planned = stack.plan(facts, desired, boot, boot_differences(boot, desired), data)
    marked = [msgspec.structs.replace(c, default=True) for c in planned.changes]
    return changes, replace(planned, changes=marked)


def trial(plan: HostPlan) -> dict[str, Any] | None:
    """The step that tries the plan's new boot arguments for one boot; None where there is nothing to try."""
    return plan.trial if plan.reboot and plan.trial else None


def trial_parts(plan: HostPlan, step: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A plan's steps in two: everything but the default boot entry, with the trial; then what makes it the default."""
    first: list[dict[str, Any]] = []
    tried = False
    for change in plan.changes:
        if not change.default:
            first.append(change.step)
        elif not tried:  # where the boot configuration has its place in the order
            first.append(step)
            tried = True
    return first, [c.step for c in plan.changes if c.default]


def trial_notes(facts: Facts, stack: Stack, planned: BootPlan, reboot: bool) -> list[str]:
    """What people must know about the trial before they apply."""
    notes = [f"left over: {forgotten}" if (forgotten := stack.left_over(facts)) else ""]
    if reboot and planned.changes and (why := stack.no_trial(facts)):
        notes.append(f"{NO_TRIAL} ({why}): apply --reboot refuses, --no-trial makes them the default at once")
    return [note for note in notes if note]


def image(capture: Capture, desired: DesiredState, changes: list[Change]) -> list[Change]:
    """The capture image, where it is not there, older than what it is built from, or built from what is changed now."""
    touched = {c.step.get("path") for c in changes}
    new = next(
        (f"{f.path} changes, and the image is made from it" for f in desired.files if f.image and f.path in touched), ""
    )
    if (capture.image_present and not capture.image_stale and not new) or not valid_release(capture.release):
        return []
    missing = "" if capture.image_present else f"there is no capture image for {capture.release}"
    why = missing or capture.image_stale or new
    step = {"op": "action", "name": "kdump-build-image", "release": capture.release}
    return [Change(kind="image", what=f"build the capture image for {capture.release}", why=why, step=step)]


def service(facts: Facts, desired: DesiredState, mask: str) -> list[Change]:
    """The unit on or off as wanted; with ``mask`` = manage also its mask. A package that is installed enables its own."""
    found = service_of(facts, desired.service)
    masked, managed = is_masked(found), mask == "manage"
    if desired.presets and any(desired.service.startswith(p) for p in desired.packages) and not masked:
        return []
    state = found.enabled if found is not None and found.enabled else "unknown"
    if desired.enabled:
        verbs = {"unmask": managed and masked, "enable": state != "enabled"}
    else:
        verbs = {"disable": state == "enabled", "mask": managed and is_there(found) and not masked}
    return [_unit(verb, desired.service, state) for verb, wanted in verbs.items() if wanted]


def _unit(verb: str, unit: str, state: str) -> Change:
    why = "nothing may start it" if verb == "mask" else f"it is {state}"
    return Change(kind="service", what=f"{verb} {unit}", why=why, step={"op": f"service-{verb}", "unit": unit})


def login(desired: DesiredState) -> list[Change]:
    """The key and the pinned host key that a login at the dump server needs."""
    if not (wish := desired.login):
        return []
    server, parts, why = wish["server"], list[str](), list[str]()
    if wish["key"]:
        parts.append(f"make the key {wish['key']} (ed25519)")
        why.append("it is not there")
    if wish["host_key"]:
        parts.append(f"add the host key of {server} to /root/.ssh/known_hosts")
        why.append("nobody answers ssh's question in the capture kernel")
    diff = f"--- a/root/.ssh/known_hosts\n+++ b/root/.ssh/known_hosts\n+{server} {wish['host_key']}\n"
    step = {"op": "action", "name": "ssh-target", **wish}
    text = diff if wish["host_key"] else ""
    return [Change(kind="login", what=", ".join(parts), why=", ".join(why), diff=text, step=step)]


def reload(why: str) -> tuple[Change, dict[str, Any]]:
    """Load the capture kernel again, and what must hold then."""
    step = {"op": "action", "name": "kdump-reload"}
    change = Change(kind="reload", what="load the capture kernel again", why=why, step=step)
    return change, {"kind": "value", "path": _LOADED, "value": "1"}


def unload() -> tuple[Change, dict[str, Any]]:
    """Take the capture kernel out, and what must hold then."""
    step = {"op": "action", "name": "kdump-unload"}
    change = Change(kind="reload", what="unload the capture kernel", why="no kdump is wanted", step=step)
    return change, {"kind": "value", "path": _LOADED, "value": "0"}


def boot_differences(boot: NextBoot, desired: DesiredState) -> list[str]:
    """How the next boot's arguments differ from the wanted ones."""
    if not boot.known:
        return [f"what boots next cannot be read: {boot.why}"]
    out = []
    for key, wanted in wanted_values(desired).items():
        found = values(boot.arguments, key)
        if found != wanted:
            have = " ".join(f"{key}={v}" if v else key for v in found) or f"no {key}"
            want = " ".join(f"{key}={v}" if v else key for v in wanted)
            out.append(f"the next boot has {have}, wanted is {want}{' once' if len(wanted) == 1 else ''}")
    for key in desired.boot_remove:
        if values(boot.arguments, key):
            out.append(f"the next boot has {key}, which must not be there")
    return out


def reboot_reason(facts: Facts, wanted: int | None) -> str:
    """Why only a reboot can help: memory is set aside at boot. Empty if none is needed."""
    have = facts.kexec.crash_size or 0
    if wanted is None:
        return "" if have else "no memory is reserved for the capture kernel"
    if have < wanted - _SHORT or have > wanted + _LONG:
        return f"the running kernel has {format_size(have)} reserved, wanted is {format_size(wanted)}: memory is set aside at boot"
    return ""


def reload_reason(facts: Facts, desired: DesiredState, capture: Capture, changes: list[Change]) -> str:
    kinds, touched = [c.kind for c in changes], {c.step.get("path") for c in changes}
    if not facts.kexec.crash_loaded:
        return "no capture kernel is loaded"
    if "image" in kinds:
        return "the capture image is built anew"
    if capture.reload:
        return capture.reload
    if changed := next((f.path for f in desired.files if f.load and f.path in touched), ""):
        return f"{changed} changes, and it is read at the load"
    if capture.loaded_arguments is None:
        return "it is not known with which command line the capture kernel was loaded" if "file" in kinds else ""
    lacking = missing(capture.loaded_arguments, desired)
    return f"the loaded capture kernel lacks: {' '.join(lacking)}" if lacking else ""


def blocked(facts: Facts) -> str:
    if facts.kexec.load_disabled:
        return "kernel.kexec_load_disabled is 1, and stays so until a reboot"
    if facts.kexec.limit_panic == 0:
        return "kernel.kexec_load_limit_panic is used up (0), and stays so until a reboot"
    return ""


def action(changes: list[Change], reboot: bool) -> str:
    rank = {"knob": 1, "service": 1, "login": 1, "reload": 2, "file": 2, "package": 2, "boot": 2, "image": 3}
    worst = max((rank[c.kind] for c in changes), default=0)
    return "reboot" if reboot else _ACTIONS[worst]


def knob_changes(facts: Facts, desired: DesiredState) -> list[Change]:
    out = []
    for path, value in desired.knobs.items():
        name = path.rsplit("/", 1)[-1]
        have = (
            facts.kernel.post_notifiers
            if name == NOTIFIERS
            else facts.kernel.sysctls.get(path.removeprefix("/proc/sys/"))
        )
        if have is None or have == value:
            continue
        step = {"op": "knob", "path": path, "value": value, "before": have}
        out.append(
            Change(
                kind="knob",
                what=f"set {name} to {value} now",
                why=f"it is {have}",
                diff=f"-{path}: {have}\n+{path}: {value}\n",
                step=step,
            )
        )
    return out
