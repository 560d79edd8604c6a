# SPDX-License-Identifier: Apache-2.0
"""What the facts say of one systemd unit."""

from __future__ import annotations

from orchestrator.documents.facts import Facts, Service


def service_of(facts: Facts, unit: str) -> Service | None:
    """The state of ``unit`` (with or without .service), or None where the probe has not seen it."""
    return facts.services.get(unit.removesuffix(".service"))


def is_there(found: Service | None) -> bool:
    """The unit exists: there is a file of it, or a mask in its place."""
    return found is not None and found.load not in ("", "not-found")


def is_masked(found: Service | None) -> bool:
    """The unit is masked for good (systemd says masked-runtime of a mask that a reboot takes away)."""
    return found is not None and (found.enabled or found.load) == "masked"
