# SPDX-License-Identifier: Apache-2.0
"""What every distribution family answers: the words for a decision, and the present state in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.bootloaders.base import NextBoot
from orchestrator.documents.decision import Decision, DumpTarget
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import DesiredState
from orchestrator.documents.platform import Platform


@dataclass(frozen=True)
class Capture:
    """The capture side of a host as it is now."""

    loaded_arguments: list[str] | None = None  # command line that the loaded capture kernel got; None = not known
    configured_arguments: list[str] = field(default_factory=list)  # what the next load would append
    target: str = ""  # where the next dump would go, if it stays here; else where the records of a load are
    image: str = ""  # path of the capture image for the next boot's kernel
    image_present: bool = False
    image_stale: str = ""  # why it should be built again ("" = fresh, or not known)
    release: str = ""  # kernel that the image is for
    place: DumpTarget = field(default_factory=DumpTarget)  # the server that the host's own configuration sends dumps to
    reload: str = ""  # why it should be loaded again, where its command line cannot be known ("" = no reason)


class Family(Protocol):
    """One module of this package."""

    def boot(self, stack: str) -> Mapping[str, Any] | None:
        """What knowledge says of a boot stack on this family; None where it is not one of its stacks."""

    def capture(self, facts: Facts, platform: Platform, boot: NextBoot) -> Capture:
        """The present state."""

    def desired(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> DesiredState:
        """The wanted state."""
