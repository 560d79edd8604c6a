# SPDX-License-Identifier: Apache-2.0
"""A decision's settings under the names that a policy gives them: one flat mapping, for tests and for comparisons."""

from __future__ import annotations

from typing import Any

from orchestrator.documents.base import to_builtins
from orchestrator.documents.decision import PLACES, Settings

_NOTIFIERS = {True: "on", False: "off", None: "kept"}

#: Fields of :class:`Settings` → names in a policy, where the value is the same and empty means "left alone".
_PLAIN = {
    "collector": "dump.collector",
    "dump_level": "dump.level",
    "dump_compression": "dump.compression",
    "final_action": "actions.final",
    "failure_action": "actions.failure",
    "keep_dumps": "retention.keep",
    "minimum_free": "retention.minimum_free",
    "fadump": "fadump",
    "early": "early",
    "reboot_allowed": "reboot.allowed",
    "reboot_windows": "reboot.windows",
    "capture_ensure": "capture.ensure",
    "capture_remove": "capture.remove",
    "boot_ensure": "boot.ensure",
    "boot_remove": "boot.remove",
    "enabled": "enabled",
}
_SPECIAL = frozenset({"post_notifiers", "reservation", "target", "sysctls"})


def flat(s: Settings) -> dict[str, Any]:
    """Dotted name → value; ``None`` is left alone. Sizes are bytes."""
    target = s.target
    out: dict[str, Any] = {
        "post_notifiers": _NOTIFIERS[s.post_notifiers],
        "crashkernel": list(s.reservation.arguments),
        "reserved": s.reservation.wanted,
        "target": target.kind or None,
        **{f"target.{kind}": target.place if target.kind == kind else None for kind in PLACES},
        "target.path": target.path or None,
        "target.key": target.key or None,
        "target.host_key": target.host_key or None,
        **{f"sysctls.{name}": value for name, value in s.sysctls.items()},
    }
    for field in s.__struct_fields__:
        if field not in _SPECIAL:
            # A field that is not known here keeps its own name: a comparison must not be blind to it.
            value = to_builtins(getattr(s, field))
            out[_PLAIN.get(field, field)] = None if value == "" else value
    return out


def flatten(wanted: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...], Any]]:
    """An expectation, nested or dotted → dotted name, the way to it in the file, and the value."""
    out: list[tuple[str, tuple[str, ...], Any]] = []
    for key, value in wanted.items():
        here = (*path, key)
        out += flatten(value, here) if isinstance(value, dict) else [(".".join(here), here, value)]
    return out
