# SPDX-License-Identifier: Apache-2.0
"""ControlReport: how a fleet stands to controls of baselines, control by control and host by host, each with its reason."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document


class ControlHost(Document, frozen=True, kw_only=True):
    """What a host comes to. ``result``: pass | fail | waived | not applicable | unknown; ``failing``: ids of checks and refusals.

    ``seen``: when the facts were read that it was judged by, UTC; empty where that is not on record.
    """

    host: str
    result: str
    why: str = ""
    fix: str = ""
    failing: list[str] = []
    arch: str = ""
    hypervisor: str = ""
    tags: list[str] = []
    seen: str = ""


class ControlResult(Document, frozen=True, kw_only=True):
    """One control. ``counts``: every result with its number of hosts, also 0; ``rules``: as baselines name it, "DISA STIG: RHEL-09-…"."""

    id: str
    title: str
    demands: str  # enabled | disabled | locked | absent
    rules: list[str] = []
    contradicts: list[str] = []
    counts: dict[str, int] = {}
    hosts: list[ControlHost] = []


class ControlReport(Document, frozen=True, kw_only=True):
    """``policy``: what *enabled and correct* is judged by. ``source``: a store, or files of recorded facts."""

    format_version: str = FORMAT_VERSION
    kind: str = "ControlReport"
    source: str = ""
    policy: str = ""
    policy_hash: str = ""
    controls: list[ControlResult] = []
