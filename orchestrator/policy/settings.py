# SPDX-License-Identifier: Apache-2.0
"""A rule's settings and the platform's row → what is wanted, still in no distribution's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.cmdline import ensure, key_of, without
from orchestrator.crashkernel import parse_size
from orchestrator.documents.decision import LAYERS, PLACES, DumpTarget, Layer, Settings
from orchestrator.knowledge.load import Knowledge, Row

_NOTIFIERS = LAYERS[0]


def _reboots(s: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Whether the host may be rebooted, and in which windows."""
    wish = s.get("reboot", {})
    return wish.get("allowed", "window" if "windows" in wish else "always"), list(wish.get("windows", []))


def disabled(s: Mapping[str, Any]) -> Settings:
    """The settings of a host that is to have no kdump: what its next command line must not have."""
    allowed, windows = _reboots(s)
    return Settings(
        enabled=False,
        boot_remove=["crashkernel", "fadump"],
        mask=s.get("mask", "leave"),
        reboot_allowed=allowed,
        reboot_windows=windows,
    )


def _is_reset(argument: str, reset: list[str]) -> bool:
    """The arguments that make the layer kdump_reset are not for a policy to remove."""
    return argument in reset or argument in {key_of(a) for a in reset}


def _capture(
    wishes: Mapping[str, Any], row: Row, guards: list[Row], knowledge: Knowledge
) -> tuple[list[str], list[str]]:
    """Arguments that the capture kernel must have, each once, and the ones that it must not have."""
    known = knowledge.capture[row.data["capture"]]
    arguments: list[str] = list(known["arguments"])
    forbidden: list[str] = list(row.data.get("forbid_arguments", []))
    added: list[str] = list(row.data.get("add_arguments", []))
    for guard in guards:
        forbidden += guard.data.get("forbid_arguments", [])
        added += guard.data.get("add_arguments", [])
        swaps = guard.data.get("replace_arguments", {})
        arguments = [swaps.get(a, a) for a in arguments]
    arguments = ensure(without(arguments, forbidden), added)
    removed = [r for r in wishes.get("remove", []) if not _is_reset(r, known["reset"])]
    arguments = ensure(without(arguments, removed), [w for w in wishes.get("ensure", []) if w not in forbidden])
    names = {key_of(a) for a in arguments}
    rivals = sorted(other for group in knowledge.exclusive if group & names for other in group - names)
    return arguments, sorted({*forbidden, *removed, *rivals})


def dump_target(wish: Mapping[str, Any]) -> DumpTarget:
    """The target of a policy's ``target`` setting."""
    kind = next((k for k in PLACES if k in wish), "path" if "path" in wish else "")
    return DumpTarget(
        kind=kind,
        place=wish.get(kind, "") if kind != "path" else "",
        path=wish.get("path", ""),
        key=wish.get("key", ""),
        host_key=wish.get("host_key", ""),
    )


def make(s: Mapping[str, Any], row: Row, guards: list[Row], layers: list[Layer], knowledge: Knowledge) -> Settings:
    """The settings without the reservation, which depends on how much RAM a host has."""
    arguments, removed = _capture(s.get("capture", {}), row, guards, knowledge)
    on = layers[0].state == "on"
    # Where the kernel turns the layer on by itself and it is merely kept, nothing has to be written anywhere.
    kept = layers[0].forced and row.data["layers"][_NOTIFIERS].get("default") == "keep"
    dump, actions, retention = (s.get(k, {}) for k in ("dump", "actions", "retention"))
    reboot_allowed, reboot_windows = _reboots(s)
    fadump = s.get("fadump", "")
    return Settings(
        post_notifiers=None if kept else on,
        capture_ensure=arguments,
        capture_remove=removed,
        boot_ensure=([_NOTIFIERS] if on and not kept else []) + ([f"fadump={fadump}"] if fadump else []),
        boot_remove=[] if on else [_NOTIFIERS],
        target=dump_target(s.get("target", {})),
        collector=dump.get("collector", ""),
        dump_level=dump.get("level"),
        dump_compression=dump.get("compression", ""),
        final_action=actions.get("final", ""),
        failure_action=actions.get("failure", ""),
        keep_dumps=retention.get("keep"),
        minimum_free=parse_size(retention["minimum_free"]) if "minimum_free" in retention else None,
        sysctls={name: str(value) for name, value in sorted(s.get("sysctls", {}).items())},
        fadump=fadump,
        early=s.get("early"),
        mask=s.get("mask", "leave"),
        reboot_allowed=reboot_allowed,
        reboot_windows=reboot_windows,
    )
