# SPDX-License-Identifier: Apache-2.0
"""One module per distribution family: Decision → DesiredState."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.distros.base import Family
from orchestrator.distros.debian import Debian

_MODULES: dict[str, type[Any]] = {"debian": Debian}


def families(data: Mapping[str, Any]) -> dict[str, Family]:
    """The families that can be planned for, with their facts from the knowledge data."""
    return {name: _MODULES[name](facts) for name, facts in data.items() if name in _MODULES}
