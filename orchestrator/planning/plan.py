# SPDX-License-Identifier: Apache-2.0
"""DesiredState × Facts → HostPlan: typed changes in the order in which they are safe, and whether a reboot is needed.

Order: packages, files, boot configuration, capture image, service, reload, and only then the layer
crash_kexec_post_notifiers: it must never be on before a capture kernel that expects it is loaded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator import __version__, bootloaders, hostside
from orchestrator.bootloaders.base import NextBoot
from orchestrator.bootloaders.grub import CONFIG as GRUB_CONFIG
from orchestrator.cmdline import key_of, values
from orchestrator.crashkernel import format_size, reserved_by
from orchestrator.distros import families
from orchestrator.distros.base import Capture
from orchestrator.distros.debian import valid_release
from orchestrator.documents.base import digest
from orchestrator.documents.decision import Decision, Refusal
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import Change, DesiredState, HostPlan, Plan
from orchestrator.documents.platform import Platform
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning.changes import NOTIFIERS, assigned, file_change, knob_changes
from orchestrator.planning.fingerprint import fingerprint
from orchestrator.planning.rows import missing, rows, wanted_values
from orchestrator.policy.decide import ram_of, replace_reservation
from orchestrator.policy.load import Policy

# A running reservation may be this much off the wanted one (bytes) without asking for a reboot: kernels align it.
_SHORT, _LONG = 4 << 20, 16 << 20
_ACTIONS = ("none", "knob", "reload", "rebuild", "reboot")


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
            return _unsupported(_blank(platform, decision, []), why)
        desired = family.desired(decision, facts, platform, boot)
        if not desired.supported:
            return _unsupported(_blank(platform, decision, []), desired.why_not)
        if obstacle := _obstacle(facts, desired, boot):
            return _blank(platform, decision, [obstacle])
        capture = family.capture(facts, platform, boot)
        key = _key(facts, platform, decision, desired, boot, capture)
        found = self._plans.get(key)
        if found is None:
            if len(self._plans) > 20_000:
                self._plans.clear()
            plan = self._changes(_blank(platform, decision, []), facts, decision, desired, boot, capture)
            found = self._plans[key] = (plan, decision, desired)
        return found[0]

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

    def _changes(
        self, base: HostPlan, facts: Facts, decision: Decision, desired: DesiredState, boot: NextBoot, capture: Capture
    ) -> HostPlan:
        changes: list[Change] = []
        notes = list(base.notes)
        reserved = decision.settings.reservation
        # A package enables its own service when it comes.
        installs = any(desired.service.startswith(p) for p in desired.packages)
        if desired.packages:
            step = {"op": "package-install", "names": list(desired.packages)}
            names = ", ".join(desired.packages)
            changes.append(Change(kind="package", what=f"install {names}", why="kdump needs it", step=step))
        boot_wrong = _boot_differences(boot, desired)
        for file in desired.files:
            snippet = file.text is not None and file.path.endswith(".cfg")
            if snippet and not boot_wrong and file.path not in facts.files:
                continue  # the next boot is right without a file of ours: leave it alone
            change = file_change(file, facts.files.get(file.path))
            if change is not None:
                changes.append(change)
        expect: list[dict[str, Any]] = []
        if boot_wrong or any(c.what.endswith("zz-kdump-orchestrator.cfg") for c in changes):
            why = "; ".join(boot_wrong) or "the snippet has changed"
            changes.append(
                Change(
                    kind="boot", what="regenerate grub.cfg", why=why, step={"op": "action", "name": "grub-regenerate"}
                )
            )
            absent = [k for k in desired.boot_remove if k not in {key_of(a) for a in desired.boot_ensure}]
            keys = [key_of(a) for a in desired.boot_ensure]
            once = {f"{key_of(a)}=": a for a in desired.boot_ensure if "=" in a and keys.count(key_of(a)) == 1}
            present = [a for a in desired.boot_ensure if f"{key_of(a)}=" not in once]
            expect.append(
                {
                    "kind": "words",
                    "path": GRUB_CONFIG,
                    "line_prefix": "linux",
                    "once": once,
                    "present": present,
                    "absent": absent,
                }
            )
        if (not capture.image_present or capture.image_stale) and valid_release(capture.release):
            why = capture.image_stale or f"there is no capture image for {capture.release}"
            step = {"op": "action", "name": "kdump-build-image", "release": capture.release}
            changes.append(
                Change(kind="image", what=f"build the capture image for {capture.release}", why=why, step=step)
            )
        service = facts.services.get(desired.service.removesuffix(".service"))
        if not installs and (service is None or service.enabled != "enabled"):  # the package enables its own service
            step = {"op": "service-enable", "unit": desired.service}
            state = service.enabled if service is not None and service.enabled else "unknown"
            changes.append(Change(kind="service", what=f"enable {desired.service}", why=f"it is {state}", step=step))
        reboot_why = _reboot_reason(facts, reserved.wanted)
        reload_why = _reload_reason(facts, desired, capture, [c.kind for c in changes])
        if reload_why and not reboot_why:
            blocked = _blocked(facts)
            if blocked:
                refusal = Refusal(
                    id="G5",
                    what="the capture kernel cannot be loaded again before a reboot",
                    why=blocked,
                    fix="reboot the host, then plan again",
                )
                return msgspec.structs.replace(base, refusals=[*base.refusals, refusal])
            changes.append(
                Change(
                    kind="reload",
                    what="load the capture kernel again",
                    why=reload_why,
                    step={"op": "action", "name": "kdump-reload"},
                )
            )
            expect.append({"kind": "value", "path": "/sys/kernel/kexec_crash_loaded", "value": "1"})
        changes += knob_changes(facts, desired)
        table = rows(facts, desired, decision, boot, capture)
        action = _action(changes, bool(reboot_why))
        status = "none" if not changes and not reboot_why else "changes"
        if decision.outcome == "audit" and status == "changes":
            status = "audit"
        return msgspec.structs.replace(
            base,
            status=status,
            action=action,
            changes=changes,
            expect=expect,
            reboot=bool(reboot_why),
            reboot_why=reboot_why,
            rows=table,
            notes=notes + list(desired.notes),
        )


def _reservation(decision: Decision, present: list[str], ram: int) -> tuple[Decision, list[Refusal]]:
    wish = decision.settings.reservation
    if wish.origin == "table" and len(present) == 1 and present != wish.arguments:
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
    service = facts.services.get(desired.service.removesuffix(".service"))
    return (
        id(decision), id(desired), summary(platform),
        tuple([tuple(values(boot.arguments, key_of(a))) for a in desired.boot_ensure]),
        tuple([tuple(values(boot.arguments, k)) for k in (*desired.boot_remove, NOTIFIERS)]),
        tuple(missing(loaded, desired)) if loaded is not None else None,
        tuple(capture.configured_arguments), capture.image_present, capture.image_stale, capture.release,
        x.crash_loaded, x.crash_size, x.load_disabled, x.limit_panic, tuple(values(facts.kernel.cmdline, "crashkernel")),
        facts.kernel.post_notifiers, tuple([facts.kernel.sysctls.get(p.removeprefix("/proc/sys/")) for p in desired.knobs]),
        service.enabled if service is not None else None, files,
    )  # fmt: skip


def _unsupported(base: HostPlan, why: str) -> HostPlan:
    refusal = Refusal(
        id="unsupported",
        what=why,
        why="changing it wrongly could make it unbootable",
        fix="see docs/adding-a-distribution.md",
    )
    return msgspec.structs.replace(base, status="unsupported", refusals=[*base.refusals, refusal])


def _obstacle(facts: Facts, desired: DesiredState, boot: NextBoot) -> Refusal | None:
    """Something that was not seen and must be seen before anything may be changed."""
    as_root = "run it again with root's rights (become)" if facts.probe.euid != 0 else "look at it on the host"
    if not boot.known:
        return Refusal(id="boot-unknown", what="it cannot be told what this host boots next", why=boot.why, fix=as_root)
    for file in desired.files:
        fact = facts.files.get(file.path)
        if fact is not None and (fact.error or fact.text is None or fact.link):
            why = fact.error or ("it is a symbolic link" if fact.link else "its text was not read")
            return Refusal(id="file-unreadable", what=f"{file.path} cannot be edited safely", why=why, fix=as_root)
        if fact is not None and file.assignments:
            try:
                assigned(fact.text or "", tuple(file.assignments))
            except hostside.edit_error() as e:
                return Refusal(
                    id="file-unreadable",
                    what=f"{file.path} cannot be edited safely",
                    why=str(e),
                    fix="simplify that line by hand",
                )
    return None


def _boot_differences(boot: NextBoot, desired: DesiredState) -> list[str]:
    """How the next boot's arguments differ from the wanted ones."""
    if not boot.known:
        return [f"what boots next cannot be read: {boot.why}"]
    out = []
    for key, wanted in wanted_values(desired).items():
        found = values(boot.arguments, key)
        if found != wanted:
            have = " ".join(f"{key}={v}" if v else key for v in found) or f"no {key}"
            want = " ".join(f"{key}={v}" if v else key for v in wanted)
            out.append(f"the next boot has {have}, wanted is {want}{' once' if len(wanted) == 1 else ''}")
    for key in desired.boot_remove:
        if values(boot.arguments, key):
            out.append(f"the next boot has {key}, which must not be there")
    return out


def _reboot_reason(facts: Facts, wanted: int | None) -> str:
    """Why only a reboot can help: memory is set aside at boot. Empty if none is needed."""
    have = facts.kexec.crash_size or 0
    if wanted is None:
        return "" if have else "no memory is reserved for the capture kernel"
    if have < wanted - _SHORT or have > wanted + _LONG:
        return f"the running kernel has {format_size(have)} reserved, wanted is {format_size(wanted)}: memory is set aside at boot"
    return ""


def _reload_reason(facts: Facts, desired: DesiredState, capture: Capture, kinds: list[str]) -> str:
    if not facts.kexec.crash_loaded:
        return "no capture kernel is loaded"
    if "image" in kinds:
        return "the capture image is built anew"
    if capture.loaded_arguments is None:
        return "it is not known with which command line the capture kernel was loaded" if "file" in kinds else ""
    lacking = missing(capture.loaded_arguments, desired)
    return f"the loaded capture kernel lacks: {' '.join(lacking)}" if lacking else ""


def _blocked(facts: Facts) -> str:
    if facts.kexec.load_disabled:
        return "kernel.kexec_load_disabled is 1, and stays so until a reboot"
    if facts.kexec.limit_panic == 0:
        return "kernel.kexec_load_limit_panic is used up (0), and stays so until a reboot"
    return ""


def _action(changes: list[Change], reboot: bool) -> str:
    rank = {"knob": 1, "service": 1, "reload": 2, "file": 2, "package": 2, "boot": 2, "image": 3}
    worst = max((rank[c.kind] for c in changes), default=0)
    return "reboot" if reboot else _ACTIONS[worst]


def seal(policy: Policy, hosts: list[HostPlan]) -> Plan:
    """A plan document with its header and its own hash."""
    plan = Plan(
        tool=f"kdump-orchestrator {__version__}",
        policy=policy.name,
        policy_hash=policy.hash,
        changes=sum(len(h.changes) for h in hosts if h.status == "changes"),
        hosts=sorted(hosts, key=lambda h: h.host),
    )
    return msgspec.structs.replace(plan, hash=digest(plan))
