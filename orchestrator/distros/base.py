# SPDX-License-Identifier: Apache-2.0
"""What every distribution family answers: the words for a decision, and the present state in the same words."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from orchestrator import hostside
from orchestrator.bootloaders.base import NextBoot
from orchestrator.documents.decision import Decision, DumpTarget, Settings
from orchestrator.documents.facts import Facts, FileFact
from orchestrator.documents.plan import DesiredFile, DesiredState
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


@lru_cache(maxsize=4096)
def variables(text: str) -> Mapping[str, str | None]:
    """Variables of a file that a shell reads; ``None`` = set, but only a shell could tell to what."""
    try:
        return {k: v for k, (v, _line) in hostside.read_assignments(text).items()}
    except hostside.edit_error():
        return {}


def text_of(file: FileFact | None) -> str:
    """A file's text; empty where it is not there or was not read."""
    return file.text or "" if file is not None else ""


class Module:
    """What the family modules share. ``data``: the family's facts (families.yaml)."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.data = data
        self._desired: dict[Any, tuple[DesiredState, Decision]] = {}

    def boot(self, stack: str) -> Mapping[str, Any] | None:
        """What knowledge says of a boot stack on this family."""
        found: Mapping[str, Any] | None = self.data["boot"].get(stack)
        return found

    def _shared(self, decision: Decision, host: Hashable, make: Callable[[], DesiredState]) -> DesiredState:
        """Like hosts with one decision share one state; the decision is kept because its identity is part of the key."""
        key = (id(decision), host)
        found = self._desired.get(key)
        if found is None:
            if len(self._desired) > 20_000:
                self._desired.clear()
            found = self._desired[key] = (make(), decision)
        return found[0]

    def _state(self, s: Settings, files: list[DesiredFile], **more: Any) -> DesiredState:
        """The wanted state from a family's own files: with them what the kernel is told, at run time and at boot."""
        knobs, d = {}, self.data
        if s.post_notifiers is not None:
            knobs["/sys/module/kernel/parameters/crash_kexec_post_notifiers"] = "Y" if s.post_notifiers else "N"
        if s.sysctls:
            lines = "".join(f"{name} = {value}\n" for name, value in s.sysctls.items())
            text = "# Managed by kdump-orchestrator: what is written here is replaced.\n" + lines
            why = "what makes the kernel panic, and so dump"
            files = [*files, DesiredFile(path=d["sysctl_snippet"], text=text, why=why)]
            knobs |= {"/proc/sys/" + name.replace(".", "/", 1): value for name, value in s.sysctls.items()}
        return DesiredState(
            supported=True,
            files=files,
            boot_ensure=[*(f"crashkernel={a}" for a in s.reservation.arguments), *s.boot_ensure],
            boot_remove=[] if s.boot_ensure else list(s.boot_remove),
            boot_owned=list(d["boot_owned"]),
            service=d["service"],
            knobs=knobs,
            **more,
        )
