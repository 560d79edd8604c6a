# SPDX-License-Identifier: Apache-2.0
"""Applying a plan to some hosts at once: those that have moved on are refused, the others run one transaction each.

Afterwards everything is read again and judged. Waves, and whether the next one may begin, are the engine's business.
Where a plan changes boot arguments and the host is rebooted, they are tried for one boot before they become the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from orchestrator.bootloaders import trial_problem
from orchestrator.checks.waive import judge_host
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan, Plan
from orchestrator.documents.verdict import Outcome, Verdict
from orchestrator.fleet.act import Part, transact
from orchestrator.fleet.act import reboot as reboot_hosts
from orchestrator.fleet.act import rollback as roll_back_hosts
from orchestrator.fleet.collect import Collected, from_hosts
from orchestrator.fleet.rollout import may_reboot
from orchestrator.fleet.runner import Progress, Whom
from orchestrator.planning import steps
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.pipeline import Pipeline
from orchestrator.policy.waivers import Waivers

# A trial is not the default yet, and is not meant to be: the first two are asked after it was confirmed. Room for the
# dump, and what the tools can read, have nothing to do with the arguments that are tried.
_AFTERWARDS = ("next-boot", "off-next-boot", "target", "collector")


@dataclass
class Applied:
    """What came of it, host by host."""

    outcomes: list[Outcome] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    pending_reboot: list[str] = field(default_factory=list)
    reboot_held: dict[str, str] = field(default_factory=dict)  # host → why the policy allows no reboot now
    seen: dict[str, Facts] = field(default_factory=dict)  # what was read of hosts afterwards


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a trial. ``runs``: the running kernel has the tried arguments. ``back``: it came back at all."""

    what: str
    why: str
    runs: bool = False
    back: bool = True


@dataclass(frozen=True)
class Run:
    """One way through a plan. ``clock`` says when a reboot would happen."""

    pipeline: Pipeline
    whom: Whom
    plan: Plan
    check: bool = False
    reboot: bool = False
    trial: bool = True  # with ``reboot``: new boot arguments are tried for one boot before they become the default
    progress: Progress | None = None
    waivers: Waivers | None = None
    reboots: int | None = None  # hosts that reboot at the same time; None = all of them
    settled: Callable[[list[Outcome]], None] | None = None  # told of transactions as soon as they have ended
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def apply(self, now: Collected) -> Applied:
        """Apply the plan; ``now`` are the hosts' facts of this moment, taken before anything was changed."""
        out = Applied()
        ready = self._ready(now, out)
        if self.check:
            out.outcomes += self._transact([h for h in ready if h.changes and not self._tries(h)])
            out.outcomes += self._transact([h for h in ready if self._tries(h)], "trial")
        elif ready:
            self._change(ready, out)
        out.outcomes.sort(key=lambda o: o.host)
        return out

    def _transact(self, hosts: list[HostPlan], part: Part = "whole") -> list[Outcome]:
        if not hosts:
            return []
        done = transact(self.whom, hosts, self.plan.hash, check=self.check, progress=self.progress, part=part)
        if self.settled is not None:
            self.settled(done)
        return done

    def _ready(self, now: Collected, out: Applied) -> list[HostPlan]:
        """The hosts that change and are still what the plan was made for."""
        present = {f.host: f for f in now.facts}
        ready: list[HostPlan] = []
        for host in self.plan.hosts:
            facts = present.get(host.host)
            if host.status != "changes" or facts is None:  # unreachable now (reported), or left out by --limit
                continue
            if fingerprint(facts, self.pipeline.judge(facts).platform) != host.fingerprint:
                out.outcomes.append(Outcome(host=host.host, state="stale"))
                continue
            ready.append(host)
        return ready

    def _change(self, wave: list[HostPlan], out: Applied) -> None:
        """Change, reboot and look again."""
        trying = [h for h in wave if self._tries(h)]
        names = {h.host for h in trying}
        rest = [h for h in wave if h.host not in names]
        outcomes = self._transact([h for h in rest if h.changes])
        done = {o.host for o in outcomes if o.state in ("committed", "nothing")}
        needing = [h for h in rest if h.reboot and (h.host in done or not h.changes)]
        if self.reboot and needing:
            outcomes, needing = self._reboot(needing, outcomes, out)
        pending = {h.host for h in needing}
        if trying:
            tried = self._try(trying, out)
            done |= {o.host for o in tried if o.state == "committed"}
            pending |= {o.host for o in tried if o.state == "nothing"}
            outcomes += tried
        out.pending_reboot += sorted(pending)
        out.outcomes += outcomes
        bad = {o.host for o in outcomes if o.state not in ("committed", "nothing")}
        settled = sorted((done | {h.host for h in rest if not h.changes}) - pending - bad)
        if settled:
            again = from_hosts(self.whom, self.pipeline.targets(), hosts=settled)
            for facts in again.facts:
                result = judge_host(self.pipeline, facts, self.waivers)
                out.verdicts.append(result)
                out.seen[facts.host] = facts

    def _tries(self, host: HostPlan) -> bool:
        return self.reboot and self.trial and steps.trial(host) is not None

    def _try(self, hosts: list[HostPlan], out: Applied) -> list[Outcome]:
        """Trial, reboot, look, and only then the default. A host that may not be rebooted now is left alone."""
        held = self._held(hosts, out)
        going = {h.host: h for h in hosts if h.host not in held}
        outcomes = {h: Outcome(host=h, state="nothing") for h in held}
        first = self._transact(list(going.values()), "trial")
        outcomes |= {o.host: o for o in first}
        names = sorted(o.host for o in first if o.state == "committed")
        answers = self._boot(names, once=True)
        wrong: dict[str, Trouble] = {
            n: Trouble("the host did not come back from the boot with the new arguments", why, back=False)
            for n in names
            if (why := answers.get(n, "it was not rebooted"))
        }
        booted = [n for n in names if n not in wrong]
        wrong |= self._look_at_trial([going[n] for n in booted], out) if booted else {}
        for second in self._transact([going[n] for n in booted if n not in wrong], "confirm"):
            if second.state == "committed":
                outcomes[second.host] = _confirmed(outcomes[second.host], second)
            else:
                why = "; ".join(v for k, v in (second.error or {}).items() if k != "fix") or second.state
                wrong[second.host] = Trouble("the tried arguments could not be made the default", why, True)
        if wrong:
            answer = roll_back_hosts(self.whom, sorted(wrong), progress=self.progress)
            back = {o.host: o for o in answer}
            outcomes |= {n: _failed_trial(outcomes[n], t, back.get(n)) for n, t in wrong.items()}
        return list(outcomes.values())

    def _look_at_trial(self, plans: list[HostPlan], out: Applied) -> dict[str, Trouble]:
        """What is wrong with hosts that run their trial."""
        again = from_hosts(self.whom, self.pipeline.targets(), hosts=[h.host for h in plans])
        found = {f.host: f for f in again.facts}
        wrong = {}
        for plan in plans:
            facts = found.get(plan.host)
            if facts is None:
                wrong[plan.host] = Trouble("the host came back from its trial, but cannot be looked at", "no answer")
                continue
            if problem := trial_problem(steps.trial(plan) or {}, facts):
                wrong[plan.host] = Trouble("the host does not run the new boot arguments", problem)
                continue
            result = judge_host(self.pipeline, facts, self.waivers)
            bad = [c for c in result.checks if c.verdict in ("fail", "unknown") and c.id not in _AFTERWARDS]
            if bad or result.status in ("refused", "unsupported"):
                why = "; ".join(f"{c.id}: {c.evidence}" for c in bad) or result.status
                wrong[plan.host] = Trouble("the new boot arguments failed their trial", why, True)
                out.verdicts.append(result)
        return wrong

    def _held(self, hosts: list[HostPlan], out: Applied) -> dict[str, str]:
        """Hosts that the policy does not let reboot now, and why."""
        held = {h.host: why for h in hosts if (why := may_reboot(h, self.clock()))}
        out.reboot_held |= held
        return held

    def _boot(self, names: list[str], *, once: bool = False) -> dict[str, str]:
        size = self.reboots or len(names) or 1
        answers: dict[str, str] = {}
        for begin in range(0, len(names), size):
            answers |= reboot_hosts(self.whom, names[begin : begin + size], progress=self.progress, once=once)
        return answers

    def _reboot(
        self, needing: list[HostPlan], outcomes: list[Outcome], out: Applied
    ) -> tuple[list[Outcome], list[HostPlan]]:
        """Reboot what may be rebooted now. Returns the outcomes with their reboots, and the hosts that still wait."""
        held = self._held(needing, out)
        names = [h.host for h in needing if h.host not in held]
        answers = self._boot(names)
        outcomes = [_rebooted(o, answers) for o in outcomes]
        known = {o.host for o in outcomes}
        outcomes += [_rebooted(Outcome(host=h, state="nothing"), answers) for h in names if h not in known]
        waiting = [h for h in needing if h.host in held or answers.get(h.host, "it was not rebooted")]
        return outcomes, waiting


def _rebooted(outcome: Outcome, answers: dict[str, str]) -> Outcome:
    if outcome.host not in answers:
        return outcome
    reason = answers[outcome.host]
    if not reason:
        return msgspec.structs.replace(outcome, rebooted=True)
    error = {
        "what": "the host did not come back from its reboot",
        "why": reason,
        "fix": "look at its console; kdo rollback puts the old arguments back",
    }
    return msgspec.structs.replace(outcome, state="failed", error=error)


def _confirmed(first: Outcome, second: Outcome) -> Outcome:
    """Both transactions of a host as one outcome."""
    return msgspec.structs.replace(
        second,
        changed=True,
        steps=[*first.steps, *second.steps],
        recovered=[*first.recovered, *second.recovered],
        rebooted=True,
    )


def _failed_trial(first: Outcome, trouble: Trouble, back: Outcome | None) -> Outcome:
    """Nothing became the default; what was done about the rest."""
    if back is not None and back.state == "rolled-back":
        left = "; the running kernel has the tried arguments until its next reboot" if trouble.runs else ""
        fix = f"nothing became the default, and everything is as before{left}"
        return msgspec.structs.replace(first, state="undone", rebooted=trouble.back, error=_error(trouble, fix))
    why = ""
    if back is not None and back.error is not None and back.state != "unreachable":
        why = f" (rolling back: {back.error.get('what', '')}: {back.error.get('why', '')})"
    fix = f"nothing became the default: its next boot has the old arguments. Reset it, then kdo rollback{why}"
    state = "undo-incomplete" if back is not None and back.state == "undo-incomplete" else "failed"
    return msgspec.structs.replace(first, state=state, rebooted=trouble.back, error=_error(trouble, fix))


def _error(trouble: Trouble, fix: str) -> dict[str, str]:
    return {"what": trouble.what, "why": trouble.why, "fix": fix}
