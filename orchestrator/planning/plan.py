# SPDX-License-Identifier: Apache-2.0
"""DesiredState × Facts → HostPlan: typed changes in the order in which they are safe, and whether a reboot is needed.

Order: packages, files, boot configuration, capture image, service, reload, and only then the layer
crash_kexec_post_notifiers: it must never be on before a capture kernel that expects it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator import __version__, bootloaders, hostside
from orchestrator.bootloaders.base import BootPlan, NextBoot, Stack
from orchestrator.cmdline import key_of, values
from orchestrator.crashkernel import format_size, reserved_by
from orchestrator.distros import families
from orchestrator.distros.base import Capture
from orchestrator.documents.base import digest
from orchestrator.documents.decision import Decision, Refusal
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredState, HostPlan, Plan, Rollout, StateRow
from orchestrator.documents.platform import Platform
from orchestrator.edits import text_after
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning import steps
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.rows import NOTIFIERS, missing, rows
from orchestrator.policy.decide import ram_of, replace_reservation
from orchestrator.policy.load import Policy
from orchestrator.services import service_of


def summary(platform: Platform) -> str:
    """One line for people: ``aarch64 hyperv guest (azure)``."""
    more = [x for x in (platform.variant, platform.cloud or platform.product) if x]
    if platform.confidential not in ("none", "unknown"):
        more.append(platform.confidential)
    return f"{platform.arch} {platform.hypervisor} {platform.role}" + (f" ({', '.join(more)})" if more else "")


class Planner:
    """Plans hosts with one policy. Pure: no host is asked, nothing is written."""

    def __init__(self, knowledge: Knowledge) -> None:
        self.families = families(knowledge.families)
        self.reported = knowledge.reported_stacks
        self.by_hand = knowledge.by_hand
        # Hosts that agree in everything that planning looks at share one plan; the values keep the objects alive
        # whose identities are part of the keys.
        self._plans: dict[Any, tuple[HostPlan, Decision, DesiredState]] = {}
        self._kept: dict[Any, tuple[Decision, list[Refusal], Decision]] = {}

    def plan_host(self, facts: Facts, platform: Platform, decision: Decision) -> HostPlan:
        """The plan for one host."""
        template = self._template(facts, platform, decision)
        return msgspec.structs.replace(template, host=facts.host, fingerprint=fingerprint(facts, platform))

    def _template(self, facts: Facts, platform: Platform, decision: Decision) -> HostPlan:
        """The plan without the host's name: everything that two like hosts have in common."""
        boot = bootloaders.next_boot(platform.boot_stack, facts)
        decision, refusals = self.keep_reservation(decision, facts, boot)
        if decision.refusals or refusals:
            return _blank(platform, decision, [*decision.refusals, *refusals])
        family = self.families.get(platform.family)
        if family is None:
            why = (
                f"the distribution family {platform.family} is not supported yet: decided and explained, never touched"
            )
            return _unsupported(_blank(platform, decision, []), why, self.by_hand.get(platform.family, {}))
        desired = self.desired(decision, facts, platform, boot)
        if not desired.supported:
            return _unsupported(_blank(platform, decision, []), desired.why_not)
        if obstacle := _obstacle(facts, desired, boot):
            return _blank(platform, decision, [obstacle])
        data = family.boot(platform.boot_stack) or {}
        stack = bootloaders.writer(platform.boot_stack, data)
        capture = family.capture(facts, platform, boot)
        key = (*_key(facts, platform, decision, desired, boot, capture), stack.key(facts))
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) > 20_000:
                self._plans.clear()
            make = self._changes if desired.enabled else self._disable
            base = msgspec.structs.replace(_blank(platform, decision, []), family=platform.family)
            view = View(facts, decision, desired, boot, capture, stack, data)
            found = self._plans[key] = (make(base, view), decision, desired)
        return found[0]

    def desired(self, decision: Decision, facts: Facts, platform: Platform, boot: NextBoot) -> DesiredState:
        """The wanted state in the words of the host's family, which must be one of :attr:`families`."""
        family = self.families[platform.family]
        if family.boot(platform.boot_stack) is None:
            return DesiredState(supported=False, why_not=self._no_stack(platform))
        return family.desired(decision, facts, platform, boot)

    def _no_stack(self, platform: Platform) -> str:
        reported = self.reported.get(platform.boot_stack)
        if reported is not None:
            return str(reported)
        return f"the boot stack {platform.boot_stack} is not supported yet on the family {platform.family}"

    def keep_reservation(self, decision: Decision, facts: Facts, boot: NextBoot) -> tuple[Decision, list[Refusal]]:
        """Keep a sufficient reservation that is already there; refuse one that the kernel would turn into nothing."""
        ram = ram_of(facts)
        if not decision.settings.reservation.arguments or ram is None:
            return decision, []
        present = values(boot.arguments if boot.known else facts.kernel.cmdline, "crashkernel")
        key = (id(decision), ram, tuple(present))
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) > 20_000:
                self._kept.clear()
            found = self._kept[key] = (*_reservation(decision, present, ram), decision)
        return found[0], found[1]

    def _changes(self, base: HostPlan, v: View) -> HostPlan:
        facts, desired, changes = v.facts, v.desired, list[Change]()
        if refusal := _masked(v):
            return msgspec.structs.replace(base, refusals=[*base.refusals, refusal])
        if desired.packages:
            step = {"op": "package-install", "names": list(desired.packages)}
            names = ", ".join(desired.packages)
            changes.append(Change(kind="package", what=f"install {names}", why="kdump needs it", step=step))
        changes += steps.login(desired)
        more, planned = steps.files_and_boot(facts, desired, v.boot, v.stack, v.data)
        if planned.obstacle is not None:
            return msgspec.structs.replace(base, refusals=[*base.refusals, planned.obstacle])
        changes += [
            *more,
            *planned.changes,
            *steps.image(v.capture, desired, more),
            *steps.service(facts, desired, v.decision.settings.mask),
        ]
        reboot_why = steps.reboot_reason(facts, v.decision.settings.reservation.wanted)
        reload_why = steps.reload_reason(facts, desired, v.capture, changes)
        expect: list[dict[str, Any]] = []
        if reload_why and not reboot_why:
            if refusal := _no_reload(facts):
                return msgspec.structs.replace(base, refusals=[*base.refusals, refusal])
            change, loaded = steps.reload(reload_why)
            changes.append(change)
            expect.append(loaded)
        changes += steps.knob_changes(facts, desired)
        table = rows(facts, desired, v.decision, v.boot, v.capture)
        return _finished(base, v, planned, changes, expect, reboot_why, table)

    def _disable(self, base: HostPlan, v: View) -> HostPlan:
        """The way to no kdump at all. The capture kernel goes last: until then a crash is still dumped."""
        facts = v.facts
        changes, planned = steps.files_and_boot(facts, v.desired, v.boot, v.stack, v.data)
        if planned.obstacle is not None:
            return msgspec.structs.replace(base, refusals=[*base.refusals, planned.obstacle])
        changes += [*planned.changes, *steps.service(facts, v.desired, v.decision.settings.mask)]
        expect: list[dict[str, Any]] = []
        if facts.kexec.crash_loaded:
            if refusal := _no_reload(facts):
                return msgspec.structs.replace(base, refusals=[*base.refusals, refusal])
            change, loaded = steps.unload()
            changes.append(change)
            expect.append(loaded)
        reserved = facts.kexec.crash_size
        why = f"{format_size(reserved)} stay set aside until the next boot" if reserved else ""
        table = rows(facts, v.desired, v.decision, v.boot, v.capture)[:1]
        return _finished(base, v, planned, changes, expect, why, table)


@dataclass(frozen=True)
class View:
    """One host with all that its plan is made from. ``data``: what knowledge says of the stack on this family."""

    facts: Facts
    decision: Decision
    desired: DesiredState
    boot: NextBoot
    capture: Capture
    stack: Stack
    data: Mapping[str, Any]


def _no_reload(facts: Facts) -> Refusal | None:
    why = steps.blocked(facts)
    if not why:
        return None
    what, fix = "the capture kernel cannot be loaded again before a reboot", "reboot the host, then plan again"
    return Refusal(id="G5", what=what, why=why, fix=fix)


def _masked(v: View) -> Refusal | None:
    if v.decision.settings.mask == "manage":
        return None
    found = service_of(v.facts, v.desired.service)
    if found is None or not found.enabled.startswith("masked"):
        return None
    return Refusal(
        id="service-masked",
        what=f"{v.desired.service} is {found.enabled}, so nothing would load the capture kernel at the next boot",
        why="somebody masked it, and whether that was meant only they know",
        fix=f"systemctl unmask {v.desired.service} on the host, or settings.mask: manage in the policy",
        where=v.decision.rule_where,
    )


def _finished(
    base: HostPlan,
    v: View,
    planned: BootPlan,
    changes: list[Change],
    expect: list[dict[str, Any]],
    reboot_why: str,
    table: list[StateRow],
) -> HostPlan:
    decision, status = v.decision, "none" if not changes and not reboot_why else "changes"
    if decision.outcome == "audit" and status == "changes":
        status = "audit"
    return msgspec.structs.replace(
        base,
        status=status,
        action=steps.action(changes, bool(reboot_why)),
        changes=changes,
        expect=expect,
        boot_expect=planned.expect,
        trial=planned.trial if reboot_why else {},
        reboot=bool(reboot_why),
        reboot_why=reboot_why,
        reboot_allowed=decision.settings.reboot_allowed,
        reboot_windows=decision.settings.reboot_windows,
        rows=table,
        notes=[*base.notes, *steps.trial_notes(v.facts, v.stack, planned, bool(reboot_why)), *v.desired.notes],
    )


def _reservation(decision: Decision, present: list[str], ram: int) -> tuple[Decision, list[Refusal]]:
    wish = decision.settings.reservation
    # One size, or SUSE's pair below and above 4 GiB.
    single = len(present) == 1 or [p.rpartition(",")[2] for p in present] in (["low", "high"], ["high", "low"])
    if wish.origin == "table" and single and present != wish.arguments:
        size = reserved_by(present, ram)
        if size >= max(wish.wanted or 0, 1):
            kept = msgspec.structs.replace(
                wish, arguments=present, wanted=size, origin="kept", why="already there, and large enough"
            )
            return replace_reservation(decision, kept), []
    if wish.wanted == 0:
        refusal = Refusal(
            id="reservation",
            what=f"crashkernel={' crashkernel='.join(wish.arguments)} would reserve nothing on this host",
            why=wish.why,
            fix="set reservation.crashkernel or reservation.minimum in the policy, or leave such small hosts out",
            where=decision.rule_where,
            sources=wish.sources,
        )
        return decision, [refusal]
    return decision, []


def _blank(platform: Platform, decision: Decision, refusals: list[Refusal]) -> HostPlan:
    """A plan that changes nothing."""
    return HostPlan(
        host="",
        fingerprint="",
        status="refused",
        platform=summary(platform),
        rule=f"{decision.rule} ({decision.rule_where})",
        overrides=decision.overrides,
        strategy=decision.strategy,
        layers=decision.layers,
        refusals=refusals,
        notes=decision.notes,
    )


def _key(
    facts: Facts, platform: Platform, decision: Decision, desired: DesiredState, boot: NextBoot, capture: Capture
) -> tuple[Any, ...]:
    """Everything that :meth:`Planner._changes` looks at, reduced to what it makes of it."""
    x, loaded = facts.kexec, capture.loaded_arguments
    files = tuple(
        [(f.text, f.sha256, f.mode, f.redacted) if (f := facts.files.get(d.path)) else None for d in desired.files]
    )
    service = service_of(facts, desired.service)
    return (
        id(decision), id(desired), summary(platform),
        tuple([tuple(values(boot.arguments, key_of(a))) for a in desired.boot_ensure]),
        tuple([tuple(values(boot.arguments, k)) for k in (*desired.boot_remove, NOTIFIERS)]),
        tuple(missing(loaded, desired)) if loaded is not None else None,
        tuple(capture.configured_arguments), capture.image_present, capture.image_stale, capture.release, capture.reload,
        x.crash_loaded, x.crash_size, x.load_disabled, x.limit_panic, tuple(values(facts.kernel.cmdline, "crashkernel")),
        facts.kernel.post_notifiers, tuple([facts.kernel.sysctls.get(p.removeprefix("/proc/sys/")) for p in desired.knobs]),
        (service.enabled, service.load) if service is not None else None, files,
    )  # fmt: skip


def _unsupported(base: HostPlan, what: str, by_hand: Mapping[str, str] | None = None) -> HostPlan:
    said = by_hand or {}
    refusal = Refusal(
        id="unsupported",
        what=what,
        why=said.get("why", "changing it wrongly could make it unbootable"),
        fix=said.get("fix", "see docs/adding-a-distribution.md"),
    )
    return msgspec.structs.replace(base, status="unsupported", refusals=[*base.refusals, refusal])


def _obstacle(facts: Facts, desired: DesiredState, boot: NextBoot) -> Refusal | None:
    """Something that was not seen and must be seen before anything may be changed."""
    as_root = "run it again with root's rights (become)" if facts.probe.euid != 0 else "look at it on the host"
    if not boot.known:
        return Refusal(
            id="boot-unknown", what="it cannot be told what this host boots next", why=boot.why, fix=boot.fix or as_root
        )
    for file in desired.files:
        fact = facts.files.get(file.path)
        if fact is not None and (fact.error or fact.text is None or fact.link):
            why = fact.error or ("it is a symbolic link" if fact.link else "its text was not read")
            return Refusal(id="file-unreadable", what=f"{file.path} cannot be edited safely", why=why, fix=as_root)
        if fact is not None:
            try:
                text_after(file, fact)
            except hostside.edit_error() as e:
                return Refusal(
                    id="file-unreadable",
                    what=f"{file.path} cannot be edited safely",
                    why=str(e),
                    fix="simplify that line by hand",
                )
    return None


def rollout_of(policy: Policy) -> Rollout:
    """How the policy wants its changes to go through a fleet."""
    wish = policy.rollout
    return Rollout(
        waves=[str(w) for w in wish.get("waves", [])],
        canary=list(wish.get("canary", [])),
        by=wish.get("by", ""),
        max_fail=str(wish.get("max_fail", 0)),
        max_unreachable=str(wish.get("max_unreachable", "100%")),
        max_hosts=wish.get("max_hosts"),
        budget=str(wish.get("budget", "")),
        reboots=wish.get("reboots"),
        soak=wish.get("soak", 0),
        pause=wish.get("pause", "never"),
        windows=list(wish.get("windows", [])),
    )


def seal(policy: Policy, hosts: list[HostPlan]) -> Plan:
    """A plan document with its header and its own hash."""
    plan = Plan(
        tool=f"kdump-orchestrator {__version__}",
        policy=policy.name,
        policy_hash=policy.hash,
        signers=policy.signers,
        rollout=rollout_of(policy),
        changes=sum(len(h.changes) for h in hosts if h.status == "changes"),
        hosts=sorted(hosts, key=lambda h: h.host),
    )
    return msgspec.structs.replace(plan, hash=digest(plan))
