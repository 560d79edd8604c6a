# SPDX-License-Identifier: Apache-2.0
"""One module per distribution family: Decision → DesiredState."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.distros.azurelinux import AzureLinux
from orchestrator.distros.base import Family
from orchestrator.distros.debian import Debian
from orchestrator.distros.ostree import Ostree
from orchestrator.distros.redhat import RedHat
from orchestrator.distros.suse import Suse

_MODULES: dict[str, type[Any]] = {
    "debian": Debian,
    "redhat": RedHat,
    "suse": Suse,
    "azurelinux": AzureLinux,
    "ostree": Ostree,
}


def families(data: Mapping[str, Any]) -> dict[str, Family]:
    """The families that can be planned for, with their facts from the knowledge data."""
    # ``like``: what is not said of a family is as with another one.
    whole = {name: {**data.get(facts.get("like", ""), {}), **facts} for name, facts in data.items()}
    return {name: _MODULES[name](facts) for name, facts in whole.items() if name in _MODULES}
