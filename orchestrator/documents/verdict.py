# SPDX-License-Identifier: Apache-2.0
"""Outcome and Verdict: what was done on a host, and what the host shows afterwards, check by check."""

from __future__ import annotations

from typing import Any

from orchestrator.documents.base import FORMAT_VERSION, Document
from orchestrator.documents.proof import Standing


class Outcome(Document, frozen=True, kw_only=True):
    """What the host side answered to a transaction or a rollback."""

    host: str
    # committed | undone | rolled-back | undo-incomplete | refused | check | nothing | stale | unreachable | failed
    state: str
    changed: bool = False
    transaction: str = ""
    steps: list[dict[str, Any]] = []
    recovered: list[str] = []
    error: dict[str, str] | None = None
    rebooted: bool = False
    put_back: list[str] = []  # rollback: paths, kernel values and units that went back, with --check that would
    diff: str = ""  # rollback: the files that went back, as unified diffs; secrets are blanked on the host


class Check(Document, frozen=True, kw_only=True):
    """One check: pass | fail | warn | skip | unknown | refused | waived, with what was seen."""

    id: str
    title: str
    verdict: str
    evidence: str
    fix: str = ""


class Verdict(Document, frozen=True, kw_only=True):
    """All checks of one host; ``status``: pass | fail | refused | unsupported."""

    format_version: str = FORMAT_VERSION
    host: str = ""
    status: str = ""
    platform: str = ""
    strategy: str = ""
    kernel: str = ""  # the running one
    state: str = ""  # hash of what is wanted of the host: together with the kernel it is what a proof holds for
    proof: Standing | None = None  # what crash tests of this host say; None = nobody asked
    waived: int = 0  # checks that fail and are waived; they do not count against the status
    checks: list[Check] = []
