# SPDX-License-Identifier: Apache-2.0
"""Proof: what came of one real crash, of a rehearsal guest or of a real host, and what it holds for."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document


class Stage(Document, frozen=True, kw_only=True):
    """One part of the way from boot to verdict; the last one is where it ended."""

    name: str
    seconds: float


class CaptureSeen(Document, frozen=True, kw_only=True):
    """What the capture kernel itself showed. ``None``/"" = it was not seen."""

    command_line: str = ""
    cpus: int | None = None
    memory: int | None = None  # bytes that the capture kernel had for everything
    peak: int | None = None  # bytes of the reservation that were in use at the worst moment


class Dump(Document, frozen=True, kw_only=True):
    """The vmcore. ``panic`` is the panic line that its own kernel log contains."""

    path: str = ""
    size: int = 0  # bytes
    complete: bool = False
    panic: str = ""
    readers: list[str] = []  # programs that have read it, and what they found
    problems: list[str] = []
    notes: list[str] = []  # readers that are no witness, and why


class Proof(Document, frozen=True, kw_only=True):
    """One crash and its verdict.

    ``outcome``: dumped (a complete vmcore with the ordered panic was read), lost (the machine crashed and left none),
    unfinished (the crash was never reached, or nothing can be said of it). ``predicted`` is what knowledge said before.
    ``state`` and ``kernel`` are what it holds for: the desired state of the host by its hash, and the running kernel.
    """

    format_version: str = FORMAT_VERSION
    kind: str = "Proof"
    how: str = "rehearsal"  # rehearsal | crash-test
    host: str = ""
    at: str = ""  # UTC, ISO 8601
    tool: str = ""
    outcome: str = "unfinished"
    predicted: str = "dumped"
    crash: str = "sysrq"  # a crash kind of policies/knowledge/crashes.yaml
    cpu: int | None = None  # the CPU that was made to panic
    arch: str = ""
    machine: str = ""  # what it ran on, in one line
    system: str = ""
    kernel: str = ""
    boot: str = ""
    knowledge: str = ""  # id of the platform's row in the knowledge data
    strategy: str = ""
    layers: dict[str, str] = {}  # layer → state at the moment of the crash
    experiment: str = ""  # what was set against the decision, "" = nothing
    policy: str = ""
    policy_hash: str = ""
    plan: str = ""
    state: str = ""
    reservation: int | None = None  # bytes
    stages: list[Stage] = []
    capture: CaptureSeen = CaptureSeen()
    dump: Dump = Dump()
    what: str = ""  # of what went wrong; "" = nothing did
    why: str = ""
    fix: str = ""
    console: list[str] = []  # the lines that show it

    @property
    def proven(self) -> bool:
        """Whether it dumped, as decided and with nothing set against the decision."""
        return self.outcome == "dumped" and not self.experiment

    @property
    def as_predicted(self) -> bool:
        """Whether knowledge had said so, or had nothing to say."""
        return self.predicted in ("", self.outcome)


class Standing(Document, frozen=True, kw_only=True):
    """What the stored proofs say of a host as it is now: proven | proof expired | never proven."""

    state: str = "never proven"
    at: str = ""
    how: str = ""
    why: str = ""
