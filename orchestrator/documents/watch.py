# SPDX-License-Identifier: Apache-2.0
"""WatchLine: one line that ``kdo watch`` prints when something has turned, or to say that it is still there."""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document
from orchestrator.documents.report import ReportProblem


class Reason(Document, frozen=True, kw_only=True):
    """Why the host was looked at: an entry of policies/knowledge/watch.yaml, and what it was seen on."""

    id: str
    what: str
    seen: str = ""
    count: int = 1  # how often, since the last look


class WatchState(Document, frozen=True, kw_only=True):
    """How the host stands. ``plan``: none | changes | refused | unsupported | audit | waived."""

    status: str = ""  # of the verdict: pass | fail | refused | unsupported
    strategy: str = ""
    plan: str = ""
    changes: int = 0
    action: str = "none"
    checks: dict[str, str] = {}  # id → verdict

    @property
    def drift(self) -> bool:
        """Whether the host is not as decided."""
        return self.plan == "changes" or self.status == "fail"

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong and nothing is left to do."""
        return self.status == "pass" and self.plan in ("none", "waived")


class Turned(Document, frozen=True, kw_only=True):
    """A check that is another one than before; ``before`` or ``after`` is empty where it is not asked any more, or is new."""

    id: str
    before: str = ""
    after: str = ""
    evidence: str = ""
    fix: str = ""


class WatchLine(Document, frozen=True, kw_only=True):
    """``kind``: start (the first look) | change | heartbeat | problem | end."""

    format_version: str = FORMAT_VERSION
    kind: str
    host: str
    at: str  # UTC, ISO 8601
    drift: bool = False
    reasons: list[Reason] = []
    before: WatchState | None = None
    after: WatchState | None = None
    turned: list[Turned] = []
    problems: list[ReportProblem] = []
    looks: int = 0  # how often the host was looked at so far
    events: int = 0  # events that mattered so far
