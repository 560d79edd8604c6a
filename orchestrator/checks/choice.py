# SPDX-License-Identifier: Apache-2.0
"""A policy and its waivers as somebody names them: loaded, linted, and held against the signatures that count.

What this needs is imported when it is used: the command line names a policy long before it wants one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.planning.pipeline import Pipeline
    from orchestrator.policy.compose import Verify
    from orchestrator.policy.waivers import Waivers


@dataclass(frozen=True)
class PolicyChoice:
    """Which policy, which waivers, and whose signature they need."""

    file: str | None = None
    waivers: tuple[str, ...] = ()
    allowed_signers: str | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.file or "the shipped policy"

    def verify(self) -> Verify | None:
        """What every file that did not come with the tool is held against."""
        from orchestrator.policy.signatures import Signers  # noqa: PLC0415

        return Signers(self.allowed_signers) if self.allowed_signers else None

    def pipeline(self) -> Pipeline:
        """Load and lint the policy; anything wrong with it ends here, before any host is touched."""
        from orchestrator.knowledge.load import knowledge  # noqa: PLC0415
        from orchestrator.planning.pipeline import Pipeline  # noqa: PLC0415
        from orchestrator.policy.lint import require_sound  # noqa: PLC0415
        from orchestrator.policy.load import default_path, load  # noqa: PLC0415

        known = knowledge()
        policy = load(self.file or default_path(), known, self.verify())
        require_sound(policy, known)
        return Pipeline(policy, known)

    def waiver_set(self, pipeline: Pipeline) -> Waivers:
        """The waivers of this run, on this day (UTC). A file that is not valid ends here, before any host is touched."""
        from datetime import UTC, datetime  # noqa: PLC0415

        from orchestrator.checks.base import all_checks  # noqa: PLC0415
        from orchestrator.checks.run import verdict  # noqa: F401, PLC0415  (registers the checks)
        from orchestrator.policy.waivers import Waivers, load_all  # noqa: PLC0415

        known, policy = pipeline.decider.knowledge, pipeline.policy
        found = load_all(self.waivers, known, all_checks(), policy, self.verify()) if self.waivers else []
        return Waivers(found, datetime.now(UTC).date())
