# SPDX-License-Identifier: Apache-2.0
"""Decision: which layer cleans up, what each layer is set to, and the whole trace of why."""

from __future__ import annotations

from orchestrator.documents.base import Document

#: The three layers, in the order in which they run. The names are used everywhere.
LAYERS = ("crash_kexec_post_notifiers", "custom_handler", "kdump_reset")

#: Kinds of dump target that are no directory of the running system; a policy names one of them as a key.
PLACES = ("filesystem", "raw", "nfs", "ssh", "virtiofs")

#: The key that both kdump-tools and kdump-utils log in with where their configuration names none.
SSH_KEY = "/root/.ssh/kdump_id_rsa"


class Clause(Document, frozen=True, kw_only=True):
    """One clause of a match: what was asked, what the host has, and the answer (``None`` = cannot be told)."""

    field: str
    wanted: str
    actual: str
    result: bool | None
    parts: list[Clause] = []


class RuleTrace(Document, frozen=True, kw_only=True):
    """One rule (of the policy or of the knowledge data) held against the host."""

    id: str
    where: str
    matched: bool | None
    clauses: list[Clause] = []


class Source(Document, frozen=True, kw_only=True):
    """Where a statement comes from."""

    id: str
    title: str


class Layer(Document, frozen=True, kw_only=True):
    """State of one layer: on, off, verified (seen in the kernel, nothing to set), expected (should be there, not seen), impossible."""

    name: str
    state: str
    why: str
    sources: list[Source] = []
    forced: bool = False  # the kernel sets it itself; it must not be undone


class Refusal(Document, frozen=True, kw_only=True):
    """A reason why nothing is done on this host, or why a wish of the policy is not met."""

    id: str
    what: str
    why: str
    fix: str = ""
    where: str = ""
    sources: list[Source] = []


class Alternative(Document, frozen=True, kw_only=True):
    """A strategy of the policy's list and what knowledge says of it on this platform."""

    strategy: str
    verdict: str  # recommended | accepted | forbidden | impossible | unproven
    why: str
    sources: list[Source] = []


class Reservation(Document, frozen=True, kw_only=True):
    """The memory set aside for the capture kernel. Sizes in bytes."""

    arguments: list[str] = []  # values of crashkernel=, in the order of the command line; most often one
    wanted: int | None = None  # what it gives on this host
    origin: str = ""  # table | named | fixed | kept
    why: str = ""
    sources: list[Source] = []


class DumpTarget(Document, frozen=True, kw_only=True):
    """Where the vmcore goes. ``kind`` is empty where the host's own configuration stands."""

    kind: str = ""  # path | filesystem | raw | nfs | ssh | virtiofs
    place: str = ""  # UUID=…, LABEL=…, /dev/…, server:/export, user@server or a tag
    path: str = ""
    key: str = ""  # private key file on the host (ssh)
    host_key: str = ""  # the server's public host key: type and base64 (ssh)


class Settings(Document, frozen=True, kw_only=True):
    """What the policy wants, after knowledge has had its say; still in no distribution's words.

    ``enabled=False``: no kdump at all is wanted; everything else is then empty.
    """

    enabled: bool = True
    post_notifiers: bool | None = None  # None = leave it as it is
    capture_ensure: list[str] = []
    capture_remove: list[str] = []
    boot_ensure: list[str] = []
    boot_remove: list[str] = []
    reservation: Reservation = Reservation()
    target: DumpTarget = DumpTarget()
    collector: str = ""  # makedumpfile | copy
    dump_level: int | None = None
    dump_compression: str = ""
    final_action: str = ""  # reboot | halt | poweroff
    failure_action: str = ""  # reboot | halt | poweroff | shell | dump_to_rootfs
    keep_dumps: int | None = None  # 0 = all
    minimum_free: int | None = None  # bytes
    sysctls: dict[str, str] = {}
    fadump: str = ""  # off | on | nocma
    early: bool | None = None
    mask: str = "leave"  # leave | manage: the service is masked where no kdump is wanted, and not masked where it is
    reboot_allowed: str = "always"  # always | window | never
    reboot_windows: list[str] = []  # UTC


class Decision(Document, frozen=True, kw_only=True):
    """The outcome: ``act`` (plan changes), ``audit`` (report them only) or ``refuse`` (touch nothing, and why)."""

    outcome: str
    rule: str
    rule_where: str
    overrides: list[str] = []  # ids of the overrides that apply on top of the rule, in order
    strategy: str  # a name of LAYERS, or "" when refused or when no kdump is wanted
    layers: list[Layer]
    settings: Settings
    refusals: list[Refusal]
    alternatives: list[Alternative]
    knowledge: list[str]  # ids of the rows that apply, the platform's row first
    notes: list[str]
    trace: list[RuleTrace] = []  # only where it was asked for
    policy: str
    policy_hash: str

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        return next(layer for layer in self.layers if layer.name == name)


class Difference(Document, frozen=True, kw_only=True):
    """One value that would be another one."""

    what: str
    now: str
    then: str


class Against(Document, frozen=True, kw_only=True):
    """One strategy that was not chosen. ``possible``: the host would not be refused with it."""

    strategy: str
    possible: bool
    listed: bool  # the rule names it
    why: str
    fix: str
    sources: list[Source] = []
    differences: list[Difference] = []
