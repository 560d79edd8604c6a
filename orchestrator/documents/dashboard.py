# SPDX-License-Identifier: Apache-2.0
"""What `kdo serve` answers: the fleet, its hosts, its runs, as JSON. Times are UTC, ISO 8601; empty = not on record."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document
from orchestrator.documents.findings import ReportHost


class Cell(Document, frozen=True, kw_only=True):
    """Hosts of one platform in one state. ``arch`` and ``hypervisor`` are empty where they are not known."""

    arch: str
    hypervisor: str
    state: str
    hosts: int


class FleetStatus(Document, frozen=True, kw_only=True):
    """How many hosts there are of what. ``silent``: that have not answered for a week."""

    format_version: str = FORMAT_VERSION
    hosts: int = 0
    states: dict[str, int] = {}  # those that need somebody first
    proofs: dict[str, int] = {}
    silent: int = 0
    platforms: list[Cell] = []


class HostLine(Document, frozen=True, kw_only=True):
    """One host in a list."""

    host: str
    state: str
    why: str
    arch: str
    hypervisor: str
    platform: str
    strategy: str
    rule: str
    kernel: str
    proof: str
    tags: list[str]
    run: str
    seen: str
    since: str


class HostPage(Document, frozen=True, kw_only=True):
    """Some hosts of a list. ``total``: how many there are of them in all; ``offset``: how many come before."""

    format_version: str = FORMAT_VERSION
    total: int = 0
    offset: int = 0
    hosts: list[HostLine] = []


class ProofLine(Document, frozen=True, kw_only=True):
    """One crash of a host on purpose. ``counts``: it was about the kernel and the configuration that it has now."""

    at: str
    how: str
    outcome: str
    crash: str
    kernel: str
    strategy: str
    size: int  # bytes of the vmcore
    panic: str
    what: str
    counts: bool


class Sighting(Document, frozen=True, kw_only=True):
    """A time in which a host's facts were the same."""

    facts: str  # hash
    first_seen: str
    last_seen: str


class HostRun(Document, frozen=True, kw_only=True):
    """What came of a host in one run."""

    run: str
    kind: str
    wave: int
    state: str
    before: str
    at: str
    why: str


class HostFull(Document, frozen=True, kw_only=True):
    """Everything on record of one host. ``traced``: why there is no trace of the rules, "" where there is one."""

    format_version: str = FORMAT_VERSION
    host: ReportHost
    proofs: list[ProofLine] = []
    sightings: list[Sighting] = []
    runs: list[HostRun] = []
    traced: str = ""


class Wave(Document, frozen=True, kw_only=True):
    """A wave of a run. ``tally``: state → number of its hosts; ``done`` of ``hosts`` are no longer open."""

    number: int
    name: str
    state: str
    hosts: int
    done: int
    failed: int
    started: str
    ended: str
    why: str
    tally: dict[str, int] = {}


class RunLine(Document, frozen=True, kw_only=True):
    """One run in a list. ``bad``: hosts in it that need somebody."""

    id: str
    kind: str
    state: str
    who: str
    policy: str
    hosts: int
    done: int
    bad: int
    created: str
    started: str
    ended: str
    why: str
    tally: dict[str, int] = {}


class RunList(Document, frozen=True, kw_only=True):
    """The newest runs first."""

    format_version: str = FORMAT_VERSION
    runs: list[RunLine] = []


class Worker(Document, frozen=True, kw_only=True):
    """Somebody who works on a run: a process here or elsewhere, with the shards that it has now."""

    name: str
    shards: int
    beat: str


class RunFull(Document, frozen=True, kw_only=True):
    """One run with its waves. ``alive``: something may still happen in it. ``rate``: hosts a second since its wave began,
    ``left``: seconds until the wave ends at that rate; both ``None`` where nothing can be said."""

    format_version: str = FORMAT_VERSION
    run: RunLine
    alive: bool
    waves: list[Wave] = []
    workers: list[Worker] = []
    rate: float | None = None
    left: int | None = None


class RunHost(Document, frozen=True, kw_only=True):
    """One host in a run."""

    host: str
    wave: int
    state: str
    before: str
    attempts: int
    at: str
    why: str


class RunHosts(Document, frozen=True, kw_only=True):
    """Some hosts of a run."""

    format_version: str = FORMAT_VERSION
    run: str
    total: int = 0
    offset: int = 0
    hosts: list[RunHost] = []


class WaiverLine(Document, frozen=True, kw_only=True):
    """A waiver that counted for hosts when they were last looked at. ``expires``: its last day."""

    id: str
    about: str
    approver: str
    expires: str
    hosts: int


class WaiverList(Document, frozen=True, kw_only=True):
    """The ones that end first, first."""

    format_version: str = FORMAT_VERSION
    waivers: list[WaiverLine] = []


class AuditLine(Document, frozen=True, kw_only=True):
    """One entry of the audit trail. ``detail`` is JSON text, as it was hashed."""

    number: int
    at: str
    who: str
    what: str
    subject: str
    detail: str
    hash: str


class AuditPage(Document, frozen=True, kw_only=True):
    """Entries, the newest first."""

    format_version: str = FORMAT_VERSION
    total: int = 0
    offset: int = 0
    entries: list[AuditLine] = []


class Pulse(Document, frozen=True, kw_only=True):
    """The fleet at one moment: what the first page shows, and the runs that are under way."""

    at: str
    states: dict[str, int] = {}
    hosts: int = 0
    bad: int = 0
    runs: list[RunLine] = []


class ProblemSaid(Document, frozen=True, kw_only=True):
    """Why there is no answer: what is wrong, where, why, and what to do."""

    what: str
    where: str = ""
    why: str = ""
    fix: str = ""
