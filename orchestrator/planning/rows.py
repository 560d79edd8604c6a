# SPDX-License-Identifier: Apache-2.0
"""The four places where a setting can differ: wanted, next boot, running, loaded."""

from __future__ import annotations

from orchestrator.bootloaders.base import NextBoot
from orchestrator.cmdline import key_of, values
from orchestrator.crashkernel import format_size
from orchestrator.distros.base import Capture
from orchestrator.documents.decision import Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredState, StateRow

NOTIFIERS = "crash_kexec_post_notifiers"


def once(same: list[str], argument: str) -> bool:
    """Whether of all arguments with one key ``argument`` counts (the kernel takes the last) and is not there twice over."""
    return bool(same) and same[-1] == argument and (same.count(argument) == 1 or len(set(same)) > 1)


def missing(arguments: list[str], desired: DesiredState) -> list[str]:
    """Wanted capture arguments that do not stand there exactly once, or that a later value of their key overrides.

    An earlier, different value is overridden itself: the kernel takes the last one.
    """
    by_key: dict[str, list[str]] = {}
    for argument in arguments:
        by_key.setdefault(key_of(argument), []).append(argument)
    return [a for a in desired.capture_arguments if not once(by_key.get(key_of(a), []), a)]


def wanted_values(desired: DesiredState) -> dict[str, list[str]]:
    """Key → the values that the next boot must have for it, in order (``crashkernel`` may stand there more than once)."""
    out: dict[str, list[str]] = {}
    for argument in desired.boot_ensure:
        out.setdefault(key_of(argument), []).append(argument.partition("=")[2])
    return out


def rows(facts: Facts, desired: DesiredState, decision: Decision, boot: NextBoot, capture: Capture) -> list[StateRow]:
    """The four layers beside each other: wanted, next boot, running, loaded."""

    def shown(arguments: list[str] | str, key: str) -> str:
        found = values(arguments, key)
        return " ".join(v or "set" for v in found) if found else "absent"

    next_arguments = boot.arguments
    size = facts.kexec.crash_size
    running = shown(facts.kernel.cmdline, "crashkernel") + (
        f" ({format_size(size)} reserved)" if size else " (nothing reserved)"
    )
    loaded = "yes" if facts.kexec.crash_loaded else "no"
    reserved = decision.settings.reservation
    wanted_size = f" ({format_size(reserved.wanted)})" if reserved.wanted else ""
    notifiers = {True: "on", False: "off", None: "as the kernel sets it"}[decision.settings.post_notifiers]
    lacking = [] if capture.loaded_arguments is None else missing(capture.loaded_arguments, desired)
    if capture.loaded_arguments is None:
        seen = "not known" if facts.kexec.crash_loaded else "nothing loaded"
    else:
        seen = "as wanted" if not lacking else f"{len(lacking)} missing"
    configured = missing(capture.configured_arguments, desired)
    unknown = "unknown" if not boot.known else ""
    return [
        StateRow(
            what="crashkernel",
            wanted=(" ".join(reserved.arguments) or "none") + wanted_size,
            next_boot=unknown or shown(next_arguments, "crashkernel"),
            running=running,
            loaded=loaded,
        ),
        StateRow(
            what=NOTIFIERS,
            wanted=notifiers,
            next_boot=unknown or shown(next_arguments, NOTIFIERS),
            running=facts.kernel.post_notifiers or "unknown",
            loaded="-",
        ),
        StateRow(
            what="capture arguments",
            wanted=f"{len(desired.capture_arguments)} arguments",
            next_boot="as wanted" if not configured else f"{len(configured)} missing",
            running="-",
            loaded=seen,
        ),
        StateRow(
            what="capture image",
            wanted=capture.release,
            next_boot="stale" if capture.image_stale else "present" if capture.image_present else "absent",
            running="-",
            loaded=loaded,
        ),
    ]
