# SPDX-License-Identifier: Apache-2.0
"""What would change for a fleet if the policy, or the knowledge, changed: hosts grouped by the kind of change.

Each host is decided with both and, where the decisions differ, planned with both: what a change costs (a reboot, a
reload, a knob) depends on the host's present state. Memory grows with the kinds of change, not with the hosts.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator import bootloaders
from orchestrator.bootloaders.base import NextBoot
from orchestrator.crashkernel import format_size
from orchestrator.documents.base import FORMAT_VERSION, Document, digest
from orchestrator.documents.decision import Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.plan import HostPlan
from orchestrator.documents.platform import Platform
from orchestrator.knowledge.load import Knowledge
from orchestrator.planning.plan import Planner
from orchestrator.platforms.classify import classify
from orchestrator.platforms.tables import Tables
from orchestrator.policy.case_settings import flat
from orchestrator.policy.decide import Decider
from orchestrator.policy.load import Policy

EXAMPLES = 5
_KEEP = 20_000
_RENEW = 20_000  # hosts
_SIZES = ("retention.minimum_free",)
#: Told otherwise: the size follows from crashkernel and each host's RAM, the others by a layer, or by their parts.
_IGNORED = ("reserved", "post_notifiers", "enabled", "target")


class Item(Document, frozen=True, kw_only=True):
    """One thing that changes. Of a list only the members that differ are given; empty is absent."""

    what: str
    old: str = ""
    new: str = ""


class Group(Document, frozen=True, kw_only=True):
    """Hosts for which the same things change."""

    changes: list[Item]
    needs: str  # of the new plan: none | knob | reload | rebuild | reboot | refused | unsupported | audit
    needed: str  # of the old plan
    same_steps: bool  # both plans do the same on the host
    hosts: int
    names: list[str]  # the first few in the order of the alphabet, or all
    memory: list[int]  # least and most bytes that the reservation grows by per host; empty where it stays


class Side(Document, frozen=True, kw_only=True):
    """One of the two that are compared."""

    policy: str
    file: str
    hash: str
    knowledge: str


class WhatIf(Document, frozen=True, kw_only=True):
    """The whole comparison."""

    format_version: str = FORMAT_VERSION
    kind: str = "PolicyDiff"
    old: Side
    new: Side
    hosts: int
    unchanged: int
    groups: list[Group]


@dataclass
class World:
    """A policy with the knowledge that it is held against."""

    policy: Policy
    knowledge: Knowledge
    tables: Tables | None = None  # of the platforms; None: the shipped ones
    decider: Decider = field(init=False)
    planner: Planner = field(init=False)

    def __post_init__(self) -> None:
        self.decider = Decider(self.policy, self.knowledge)
        self.renew()

    def renew(self) -> None:
        """Forget plans: a planner remembers also those of hosts whose command line no other host has."""
        self.planner = Planner(self.knowledge)

    def side(self) -> Side:
        """For the report."""
        p = self.policy
        return Side(policy=p.name, file=p.file, hash=p.hash, knowledge=self.knowledge.hash)


_Kind = tuple[tuple[Item, ...], str, str, bool]  # what changes, needs, needed, same steps


@dataclass
class _Bucket:
    group: _Kind
    hosts: int = 0
    names: list[str] = field(default_factory=list)
    least: int | None = None
    most: int | None = None

    def add(self, name: str, limit: int | None, grows: int | None) -> None:
        self.hosts += 1
        if limit is None:
            self.names.append(name)
        elif len(self.names) < limit or name < self.names[-1]:
            insort(self.names, name)
            del self.names[limit:]
        if grows is not None:
            self.least = grows if self.least is None else min(self.least, grows)
            self.most = grows if self.most is None else max(self.most, grows)


class Comparison:
    """Takes hosts one by one."""

    def __init__(self, old: World, new: World, every_name: bool = False) -> None:
        self.old = old
        self.new = new
        self.hosts = 0
        self._limit = None if every_name else EXAMPLES
        self._buckets: dict[Any, _Bucket] = {}
        # Equal decisions come as the same objects; the values keep them alive, so that an identity stays theirs.
        self._items: dict[tuple[int, int], tuple[tuple[Item, ...], Decision, Decision]] = {}
        # Where what is known about distributions is the same, like decisions mean like plans.
        self._plan_all = digest(old.knowledge.families) != digest(new.knowledge.families)

    def add(self, facts: Facts) -> None:
        """One host. Raises :class:`InvalidInput`, and leaves the host out, if it cannot be planned."""
        found = self._kind(facts)
        self.hosts += 1
        if self.hosts % _RENEW == 0:
            self.old.renew()
            self.new.renew()
        if found is None:
            return
        key, grows = found
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = _Bucket(key)
        bucket.add(facts.host, self._limit, grows)

    def _kind(self, facts: Facts) -> tuple[_Kind, int | None] | None:
        """What changes for the host, and by how much its reservation grows; ``None`` if nothing does."""
        old, new = self.old, self.new
        after = classify(facts, new.tables)
        before = after if old.tables is new.tables else classify(facts, old.tables)
        was, becomes = old.decider.decide(facts, before), new.decider.decide(facts, after)
        items = self._compared(was, becomes)
        if before is not after:
            items = _platforms(before, after) + items
        if not items and not self._plan_all:
            return None
        plan, planned = old.planner.plan_host(facts, before, was), new.planner.plan_host(facts, after, becomes)
        needed, needs = _needs(plan), _needs(planned)
        same = plan.changes == planned.changes and plan.reboot == planned.reboot
        items = _refusals(plan, planned, was, becomes) + items
        if not items:
            if same and needed == needs:
                return None
            items = (_steps(plan, planned),)
        grows = self._grows(facts, (before, after), (was, becomes)) if _reserves(items) else None
        return (items, needs, needed, same), grows

    def result(self) -> WhatIf:
        """Groups by size; among equals by what changes."""
        groups = [
            Group(
                changes=list(bucket.group[0]),
                needs=bucket.group[1],
                needed=bucket.group[2],
                same_steps=bucket.group[3],
                hosts=bucket.hosts,
                names=sorted(bucket.names),
                memory=[] if bucket.least is None or bucket.most is None else [bucket.least, bucket.most],
            )
            for bucket in self._buckets.values()
        ]
        groups.sort(
            key=lambda g: (-g.hosts, [(i.what, i.old, i.new) for i in g.changes], g.needs, g.needed, g.same_steps)
        )
        unchanged = self.hosts - sum(g.hosts for g in groups)
        return WhatIf(
            old=self.old.side(), new=self.new.side(), hosts=self.hosts, unchanged=unchanged, groups=groups
        )  # fmt: skip

    def _compared(self, was: Decision, becomes: Decision) -> tuple[Item, ...]:
        key = (id(was), id(becomes))
        found = self._items.get(key)
        if found is None:
            if len(self._items) > _KEEP:
                self._items.clear()
            found = self._items[key] = (tuple(differences(was, becomes)), was, becomes)
        return found[0]

    def _grows(
        self, facts: Facts, platforms: tuple[Platform, Platform], decisions: tuple[Decision, Decision]
    ) -> int | None:
        """Bytes by which the host's reservation grows; one that is there already and large enough is kept."""
        sizes = []
        boots: dict[str, NextBoot] = {}
        for world, platform, decision in zip((self.old, self.new), platforms, decisions, strict=True):
            stack = platform.boot_stack
            boot = boots.get(stack) or boots.setdefault(stack, bootloaders.next_boot(stack, facts))
            kept, _ = world.planner.keep_reservation(decision, facts, boot)
            reservation = kept.settings.reservation
            sizes.append(reservation.wanted if reservation.arguments else 0)
        return None if sizes[0] is None or sizes[1] is None else sizes[1] - sizes[0]


def _reserves(items: Iterable[Item]) -> bool:
    return any(i.what in ("crashkernel", "outcome", "kdump wanted") for i in items)


def _needs(plan: HostPlan) -> str:
    return plan.status if plan.status in ("refused", "unsupported", "audit") else plan.action


def differences(was: Decision, becomes: Decision) -> list[Item]:
    """What differs between two decisions: first what it means for the host, then where that comes from.

    Texts that only explain do not count. Where one side is refused or wants no kdump, everything else differs for that
    reason alone and is not told.
    """
    out = _words(("outcome", was.outcome, becomes.outcome))
    wanted, wants = was.settings.enabled, becomes.settings.enabled
    if wanted != wants:
        out.append(Item(what="kdump wanted", old=_text("", wanted), new=_text("", wants)))
    else:
        out += _words(("strategy", was.strategy, becomes.strategy))
        if "refuse" not in (was.outcome, becomes.outcome):
            layers = _words(
                *((f"layer {a.name}", a.state, b.state) for a, b in zip(was.layers, becomes.layers, strict=True))
            )
            out += layers + _settings(flat(was.settings), flat(becomes.settings))
    out += _words(("rule", was.rule, becomes.rule))
    out += _members("overrides", was.overrides, becomes.overrides)
    return out + _members("knowledge", was.knowledge, becomes.knowledge)


def _words(*pairs: tuple[str, str, str]) -> list[Item]:
    return [Item(what=what, old=old or "none", new=new or "none") for what, old, new in pairs if old != new]


def _settings(old: dict[str, Any], new: dict[str, Any]) -> list[Item]:
    out = []
    for name in list(dict.fromkeys([*old, *new])):
        a, b = old.get(name), new.get(name)
        if a == b or name in _IGNORED:
            continue
        if isinstance(a, list) and isinstance(b, list) and name != "crashkernel":
            out += _members(name, a, b)
        else:
            out.append(Item(what=name, old=_text(name, a), new=_text(name, b)))
    return out


def _members(what: str, old: list[str], new: list[str]) -> list[Item]:
    """The members of two lists that are in one of them only."""
    lost, gained = [x for x in old if x not in new], [x for x in new if x not in old]
    return [Item(what=what, old=" ".join(lost), new=" ".join(gained))] if lost or gained else []


def _text(name: str, value: Any) -> str:
    if value is None or value == []:
        return "left alone" if value is None else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in _SIZES:
        return format_size(value)
    return " ".join(value) if isinstance(value, list) else str(value)


def _platforms(before: Platform, after: Platform) -> tuple[Item, ...]:
    """What the host is taken for, where the tables of platforms differ."""
    names = ("arch", "hypervisor", "role", "variant", "cloud", "confidential", "confidential_host", "paravisor", "ambiguous", "family", "boot_stack")  # fmt: skip
    pairs = [(n, getattr(before, n), getattr(after, n)) for n in names]
    return tuple(Item(what=f"platform {n}", old=_text(n, a) or "none", new=_text(n, b) or "none") for n, a, b in pairs if a != b)  # fmt: skip


def _refusals(plan: HostPlan, planned: HostPlan, was: Decision, becomes: Decision) -> tuple[Item, ...]:
    """Refusals that are gained or lost, of the decision and of the plan."""
    old, new = (
        {r.id: r.what for r in (*d.refusals, *p.refusals) if r.id != "unsupported"}  # said by what the host needs
        for d, p in ((was, plan), (becomes, planned))
    )
    out = [Item(what="refusal", old=f"{i}: {old[i]}") for i in sorted(old.keys() - new.keys())]
    return tuple(out + [Item(what="refusal", new=f"{i}: {new[i]}") for i in sorted(new.keys() - old.keys())])


def _steps(plan: HostPlan, planned: HostPlan) -> Item:
    """What the plans do, where only what is known about the distribution differs."""
    a, b = (", ".join(dict.fromkeys(c.kind for c in p.changes)) or "nothing" for p in (plan, planned))
    return Item(what="steps of the plan", old=a, new=b if a != b else f"{b} (other ones)")
