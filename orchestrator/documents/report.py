# SPDX-License-Identifier: Apache-2.0
"""HostReport: what a host says of itself, sent by the host, where nobody comes in to ask (`kdo watch`, `kdo pull`).

Whoever reads one treats it as untrusted: a host can write what it likes into it, also another host's name.
"""

from __future__ import annotations

from orchestrator.documents.base import FORMAT_VERSION, Document
from orchestrator.documents.facts import Facts
from orchestrator.documents.verdict import Outcome, Verdict


class ReportPolicy(Document, frozen=True, kw_only=True):
    """What the host was judged by. ``serial`` is 0 where no bundle was in use, ``signer`` empty where none was asked for."""

    serial: int = 0
    policy: str = ""
    policy_hash: str = ""
    signer: str = ""


class ReportPlan(Document, frozen=True, kw_only=True):
    """The plan of the host in short. ``status`` and ``action`` as in a plan."""

    status: str = ""  # none | changes | refused | unsupported | audit | waived
    changes: int = 0  # number of steps
    action: str = "none"  # none | knob | reload | rebuild | reboot
    reboot: bool = False
    rule: str = ""
    strategy: str = ""


class ReportProblem(Document, frozen=True, kw_only=True):
    """Something that went wrong on the way: what, where, why, what to do."""

    what: str
    where: str = ""
    why: str = ""
    fix: str = ""


class HostReport(Document, frozen=True, kw_only=True):
    """One look of a host at itself. ``facts``, ``plan`` and ``verdict`` are null where it did not come to that.

    ``outcome`` is what was done, null where nothing was. ``problems`` do not exclude a verdict.
    """

    format_version: str = FORMAT_VERSION
    kind: str = "HostReport"
    host: str = ""
    at: str = ""  # UTC, ISO 8601, to the second
    how: str = "pull"  # watch | pull
    tool: str = ""
    bundle: ReportPolicy = ReportPolicy()
    plan: ReportPlan | None = None
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    pending_reboot: str = ""  # why a reboot that is needed was not made; "" = none is needed
    problems: list[ReportProblem] = []
    facts: Facts | None = None
