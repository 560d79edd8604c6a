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
from orchestrator.planning.changes import NOTIFIERS


def count(arguments: list[str], wanted: str) -> int:
    """1 if the argument stands there exactly once and no other value of its key does."""
    key = key_of(wanted)
    same = [a for a in arguments if key_of(a) == key]
    # console= and the like may stand several times by nature; ours never do
    return len(same) if wanted in same else 0


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
    missing = (
        []
        if capture.loaded_arguments is None
        else [a for a in desired.capture_arguments if count(capture.loaded_arguments, a) != 1]
    )
    if capture.loaded_arguments is None:
        seen = "not known" if facts.kexec.crash_loaded else "nothing loaded"
    else:
        seen = "as wanted" if not missing else f"{len(missing)} missing"
    configured = [a for a in desired.capture_arguments if count(capture.configured_arguments, a) != 1]
    unknown = "unknown" if not boot.known else ""
    return [
        StateRow(
            what="crashkernel",
            wanted=reserved.argument + wanted_size,
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
