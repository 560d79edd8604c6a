# SPDX-License-Identifier: Apache-2.0
"""Report: what is on record of a fleet, host by host, in one shape for every form that it is shown in."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document
from orchestrator.documents.decision import Layer, RuleTrace
from orchestrator.documents.plan import Change, StateRow
from orchestrator.documents.platform import Contradiction, Evidence
from orchestrator.documents.verdict import Check


class Finding(Document, frozen=True, kw_only=True):
    """Something that somebody may have to do about a host.

    ``level``: error | warning | note (approved for a time). ``where``: the line of the policy that it is about.
    """

    id: str  # of the check, of the refusal, or the kind of step that is due
    level: str
    what: str
    why: str = ""
    fix: str = ""
    where: str = ""  # file:line:col


class Detail(Document, frozen=True, kw_only=True):
    """What stands behind a host's state, as its facts, its plan and its verdict have it.

    ``trace``: the policy's rules held against the host; only where the policy was given that decided it.
    """

    evidence: list[Evidence] = []
    contradictions: list[Contradiction] = []
    trace: list[RuleTrace] = []
    layers: list[Layer] = []
    checks: list[Check] = []
    changes: list[Change] = []
    rows: list[StateRow] = []
    notes: list[str] = []


class ReportHost(Document, frozen=True, kw_only=True):
    """A host: its state, what decided it, and its findings. Times are UTC, ISO 8601; empty = not on record."""

    host: str
    state: str
    why: str = ""
    arch: str = ""
    hypervisor: str = ""
    platform: str = ""
    strategy: str = ""
    rule: str = ""
    where: str = ""  # of the rule: file:line:col
    kernel: str = ""
    proof: str = ""
    tags: list[str] = []
    seen: str = ""
    since: str = ""
    run: str = ""
    findings: list[Finding] = []
    detail: Detail | None = None  # only where it was asked for


class Report(Document, frozen=True, kw_only=True):
    """Hosts by name, and the numbers of them by state. ``source``: a store or the files that it was made from."""

    format_version: str = FORMAT_VERSION
    kind: str = "Report"
    source: str = ""
    states: dict[str, int] = {}
    hosts: list[ReportHost] = []
