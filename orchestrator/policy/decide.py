# SPDX-License-Identifier: Apache-2.0
"""Facts and Platform → Decision. Pure: the same input gives the same bytes.

Policy chooses, knowledge bounds: the first rule that certainly matches gives an ordered list of layers to rely on; the
platform's row says which of them this kernel offers. What is not offered is refused, with the source that says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from orchestrator.crashkernel import round_ram
from orchestrator.documents.decision import LAYERS, Decision, Refusal, Reservation, Settings
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy import layers as on_layers
from orchestrator.policy import settings as on_settings
from orchestrator.policy.compose import merge
from orchestrator.policy.context import Context
from orchestrator.policy.explain import trace_rules
from orchestrator.policy.limits import Limit, asked
from orchestrator.policy.load import Override, Policy, Rule
from orchestrator.policy.shape import Entry, Shape
from orchestrator.policy.sizing import Basis, Trouble

A, B, _ = LAYERS
_KEEP = 20_000  # flat memory for a stream of a million different hosts


class Decider:
    """Decides for many hosts with one policy. Hosts that agree in everything that is consulted share one decision."""

    def __init__(self, policy: Policy, knowledge: Knowledge) -> None:
        self.policy = policy
        self.knowledge = knowledge
        places = [*(r.settings for r in policy.rules), *(o.settings for o in policy.overrides)]
        self._limits = tuple({limit.id: limit for s in places for limit in asked(knowledge.limits, s)}.values())
        plain: list[Any] = [*policy.rules, *policy.overrides, *self._limits]
        entries: list[Entry] = [(entry.match, ()) for entry in plain]
        entries += [(row.match, _probes(row)) for row in (*knowledge.rows, *knowledge.guards)]
        self._shape = Shape([*entries, *((m, ()) for m in knowledge.sizer.matchers)], knowledge.features)
        self._cache: dict[Any, tuple[Decision, Basis | None]] = {}
        self._sized: dict[tuple[int, int | None], Decision] = {}  # the cache above keeps the identities valid
        self._effective: dict[tuple[str, tuple[str, ...]], Rule] = {}

    def decide(self, facts: Facts, platform: Platform) -> Decision:
        """The decision for one host, without its trace; hosts that cannot differ share it."""
        kernel = facts.kernel
        key = (
            self._shape(facts, platform),
            kernel.crash_shutdown,
            None if kernel.symbols is None else tuple(kernel.symbols),
            kernel.post_notifiers,
            tuple([c.why for c in platform.contradictions]) if platform.contradictions else None,
        )
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) > _KEEP:
                self._cache.clear()
                self._sized.clear()
            found = self._cache[key] = self._decide(facts, platform)
        decision, basis = found
        if basis is None:
            return decision
        ram = ram_of(facts)
        sized = self._sized.get((id(decision), ram))
        if sized is None:
            if len(self._sized) > _KEEP:
                self._sized.clear()
            sized = self._sized[id(decision), ram] = replace_reservation(
                decision, basis.reservation(ram, self.knowledge.cite)
            )
        return sized

    def explained(self, facts: Facts, platform: Platform) -> Decision:
        """The same decision, made without looking at earlier ones, with the trace of every rule and clause."""
        decision, basis = self._decide(facts, platform)
        if basis is not None:
            decision = replace_reservation(decision, basis.reservation(ram_of(facts), self.knowledge.cite))
        context = Context(facts, platform, self.knowledge.features)
        return msgspec.structs.replace(decision, trace=trace_rules(self.policy, self.knowledge, context))

    def effective(self, context: Context) -> tuple[Rule, list[Override]]:
        """The rule that takes the host, with the settings of all overrides that hold, and these overrides."""
        rule = next(r for r in self.policy.rules if r.match.test(context) is True)
        overrides = [o for o in self.policy.overrides if o.match.test(context) is True]
        if not overrides:
            return rule, []
        key = (rule.id, tuple(o.id for o in overrides))
        if key not in self._effective:
            settings, level = rule.settings, rule.level
            for o in overrides:
                settings, level = merge(settings, o.settings), o.level or level
            self._effective[key] = replace(rule, settings=settings, level=level)
        return self._effective[key], overrides

    def _decide(self, facts: Facts, platform: Platform) -> tuple[Decision, Basis | None]:
        """Everything but the size of the reservation and the trace, and what that size is computed from."""
        k, policy = self.knowledge, self.policy
        context = Context(facts, platform, k.features)
        rule, overrides = self.effective(context)
        row = next(r for r in k.rows if r.match.test(context) is True)
        guards = [g for g in k.guards if g.match.test(context) is True]
        refusals = self._refusals(rule, row, guards, facts, platform)
        unknown = {"state": "absent", "why": row.data.get("refuse", {}).get("why", "")}
        layers = {name: dict(row.data.get("layers", {}).get(name, unknown)) for name in LAYERS}
        states = {B: on_layers.handler_state(layers[B], facts, k.features)} if layers[B]["state"] != "absent" else {}
        unproven = bool(rule.settings.get("allow_unproven", False))
        alternatives = (
            [on_layers.judge(name, layers[name], row, states.get(name), unproven, k) for name in LAYERS]
            if "layers" in row.data
            else []
        )
        strategy = ""
        basis = None
        if not refusals and not rule.disable:
            fadump = rule.settings.get("fadump") in ("on", "nocma")
            basis = k.sizer.basis(rule.settings.get("reservation", {}), context, fadump)
            refusals = self._unmet(rule, overrides, context) + on_layers.forbidden_wishes(rule, row, layers[A], k)
            refusals += [_unmet("reservation", trouble.what, trouble, rule, k) for trouble in basis.troubles]
            strategy, refusal = on_layers.choose(rule, row, alternatives, unproven)
            refusals += [refusal] if refusal else []
        acting = not refusals
        notes: list[str] = []
        if acting and not rule.disable:
            decided = on_layers.active(strategy, layers, states, rule, facts, k)
            settings = on_settings.make(rule.settings, row, guards, decided, k)
            notes = list(row.data.get("notes", [])) + [g.data["note"] for g in guards if "note" in g.data]
        else:
            decided = on_layers.passive(layers, states, k)
            settings = on_settings.disabled(rule.settings) if acting else Settings()
        decision = Decision(
            outcome=("audit" if rule.level == "audit" else "act") if acting else "refuse",
            rule=rule.id,
            rule_where=rule.where,
            overrides=[o.id for o in overrides],
            strategy=strategy if acting else "",
            layers=decided,
            settings=settings,
            refusals=refusals,
            alternatives=alternatives,
            knowledge=[row.id, *(g.id for g in guards)],
            notes=notes,
            policy=policy.name,
            policy_hash=policy.hash,
        )
        return decision, basis if acting else None

    def _unmet(self, rule: Rule, overrides: list[Override], context: Context) -> list[Refusal]:
        """Wishes that this host cannot meet. One that may not be met because something is unknown is let through."""
        out = []
        for limit in asked(self._limits, rule.settings):
            if limit.match.test(context) is True:
                place = next((o for o in reversed(overrides) if limit.hit(o.settings)), rule)
                what = f"the policy asks for {limit.setting}, which this host cannot do"
                out.append(_unmet(limit.id, what, limit, place, self.knowledge))
        return out

    def _refusals(self, rule: Rule, row: Row, guards: list[Row], facts: Facts, platform: Platform) -> list[Refusal]:
        words = {"role": platform.role, "arch": platform.arch, "hypervisor": platform.hypervisor}
        reasons = [(entry, entry.data["refuse"]) for entry in (row, *guards) if "refuse" in entry.data]
        if (need := row.data.get("requires")) and self.knowledge.features[need["feature"]](facts) is not True:
            reasons.append((row, need))
        out = [
            Refusal(
                id=entry.id,
                what=reason["what"].format(**words),
                why=reason["why"],
                fix=reason["fix"],
                where=entry.where,
                sources=self.knowledge.cite(entry.data.get("sources", [])),
            )
            for entry, reason in reasons
            if not rule.disable or reason.get("always")
        ]
        if rule.refuse:
            details = "; ".join(c.why for c in platform.contradictions)
            out.append(
                Refusal(
                    id=rule.id,
                    what=rule.refuse,
                    why=details or rule.why,
                    where=rule.where,
                    fix="change the policy if that is not wanted",
                )
            )
        return out


def _probes(row: Row) -> list[str]:
    """Features that a row asks for besides its match."""
    named = [row.data["requires"]["feature"]] if "requires" in row.data else []
    named += [layer["feature"] for layer in row.data.get("layers", {}).values() if "feature" in layer]
    return [f"feature:{name}" for name in named]


def ram_of(facts: Facts) -> int | None:
    """RAM in bytes, rounded up as the kernel does: firmware and kernel keep a little of the last block for themselves."""
    memory = facts.memory.system_ram or facts.memory.total
    return round_ram(memory) if memory else None


def _unmet(id: str, what: str, data: Limit | Trouble, place: Rule | Override, knowledge: Knowledge) -> Refusal:
    """A wish of the policy, written at ``place``, that a host cannot meet."""
    sources = knowledge.cite(data.sources)
    return Refusal(id=id, what=what, why=data.why, fix=data.fix, where=place.where, sources=sources)


def replace_reservation(decision: Decision, reservation: Reservation) -> Decision:
    """The same decision with another reservation (planning keeps a larger one that is already there)."""
    settings = msgspec.structs.replace(decision.settings, reservation=reservation)
    return msgspec.structs.replace(decision, settings=settings)
