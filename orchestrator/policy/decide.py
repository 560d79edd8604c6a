# SPDX-License-Identifier: Apache-2.0
"""Facts and Platform → Decision. Pure: the same input gives the same bytes.

Policy chooses, knowledge bounds: the first rule that certainly matches gives an ordered list of layers to rely on; the
platform's row says which of them this kernel offers. What is not offered is refused, with the source that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.cmdline import ensure, key_of, without
from orchestrator.crashkernel import format_size, parse, parse_size, round_ram
from orchestrator.documents.decision import LAYERS, Alternative, Decision, Layer, Refusal, Reservation, Settings, Source
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy.context import Context, getter
from orchestrator.policy.explain import trace_rules
from orchestrator.policy.load import Policy, Rule

A, B, C = LAYERS


def handler_state(layer: Mapping[str, Any], facts: Facts, features: Mapping[str, Any]) -> tuple[str, str]:
    """State of the layer ``custom_handler`` and the evidence for it: verified, expected, off or absent."""
    handlers: list[str] = layer.get("handlers", [])
    pointer, symbols = facts.kernel.crash_shutdown, facts.kernel.symbols
    if pointer is not None and handlers:
        if pointer in handlers:
            return "verified", f"machine_ops.crash_shutdown points to {pointer}"
        if pointer.endswith("_crash_shutdown"):
            return "off", f"machine_ops.crash_shutdown points to {pointer}, not to {' or '.join(handlers)}"
    if symbols is not None:
        found = [h for h in handlers if h in symbols]
        if found:
            return "verified", f"the kernel has {found[0]}"
        return "off", f"the kernel has no {' or '.join(handlers)}"
    probe = features[layer["feature"]](facts) if "feature" in layer else None
    if probe is False:
        return "off", f"this kernel was built without {' or '.join(handlers)}"
    return "expected", "the symbols of the kernel could not be read (root is needed), so it is expected, not seen"


class Decider:
    """Decides for many hosts with one policy. Hosts that agree in everything that is consulted share one decision."""

    def __init__(self, policy: Policy, knowledge: Knowledge) -> None:
        self.policy = policy
        self.knowledge = knowledge
        fields: set[str] = {"arch"}
        for rule in policy.rules:
            fields |= rule.match.fields
        for row in (*knowledge.rows, *knowledge.guards):
            fields |= row.match.fields
            if "requires" in row.data:
                fields.add("feature:" + row.data["requires"]["feature"])
        for table in knowledge.reservations:
            fields |= table.match.fields
        self._getters = tuple(getter(field, knowledge.features) for field in sorted(fields))
        self._cache: dict[Any, tuple[Decision, _Basis | None]] = {}
        self._sized: dict[tuple[int, int | None], Decision] = {}  # the cache above keeps the identities valid

    def decide(self, facts: Facts, platform: Platform) -> Decision:
        """The decision for one host; equal to :meth:`fresh`, and shared between hosts that cannot differ."""
        kernel = facts.kernel
        key = (
            tuple([get(facts, platform) for get in self._getters]),
            kernel.crash_shutdown,
            None if kernel.symbols is None else tuple(kernel.symbols),
            kernel.post_notifiers,
            tuple([c.why for c in platform.contradictions]),
        )
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) > 20_000:  # flat memory for a stream of a million different hosts
                self._cache.clear()
                self._sized.clear()
            found = self._cache[key] = self._decide(facts, platform)
        decision, basis = found
        if basis is None:
            return decision
        ram = ram_of(facts)
        sized = self._sized.get((id(decision), ram))
        if sized is None:
            if len(self._sized) > 20_000:
                self._sized.clear()
            sized = self._sized[id(decision), ram] = replace_reservation(decision, basis.reservation(ram))
        return sized

    def fresh(self, facts: Facts, platform: Platform) -> Decision:
        """Decide without looking at earlier decisions."""
        decision, basis = self._decide(facts, platform)
        return decision if basis is None else replace_reservation(decision, basis.reservation(ram_of(facts)))

    def _decide(self, facts: Facts, platform: Platform) -> tuple[Decision, _Basis | None]:
        """Everything but the size of the reservation, and what that size is computed from."""
        k, policy = self.knowledge, self.policy
        context = Context(facts, platform, k.features)
        rule = next(r for r in policy.rules if r.match.test(context) is True)
        row = next(r for r in k.rows if r.match.test(context) is True)
        guards = [g for g in k.guards if g.match.test(context) is True]
        refusals = self._refusals(rule, row, guards, facts, platform)
        unknown = {"state": "absent", "why": row.data.get("refuse", {}).get("why", "")}
        layers = {name: dict(row.data.get("layers", {}).get(name, unknown)) for name in LAYERS}
        states = {B: handler_state(layers[B], facts, k.features)} if layers[B]["state"] != "absent" else {}
        unproven = bool(rule.settings.get("allow_unproven", False))
        alternatives = (
            [self._judge(name, layers[name], row, states.get(name), unproven) for name in LAYERS]
            if "layers" in row.data
            else []
        )
        strategy = ""
        if not refusals:
            strategy, refusal = _choose(rule, row, alternatives, unproven)
            refusals += [refusal] if refusal else []
        if not refusals:
            refusals += _forbidden_wishes(rule, row, layers[A], k)
        acting = not refusals
        decided = self._layers(strategy, layers, states, rule, facts) if acting else self._passive(layers, states)
        settings = self._settings(rule, row, guards, decided, context) if acting else Settings()
        notes = list(row.data.get("notes", [])) + [g.data["note"] for g in guards if "note" in g.data]
        decision = Decision(
            outcome=("audit" if rule.level == "audit" else "act") if acting else "refuse",
            rule=rule.id,
            rule_where=rule.where,
            strategy=strategy if acting else "",
            layers=decided,
            settings=settings,
            refusals=refusals,
            alternatives=alternatives,
            knowledge=[row.id, *(g.id for g in guards)],
            notes=notes,
            trace=trace_rules(policy.rules, k, rule, row, context),
            policy=policy.name,
            policy_hash=policy.hash,
        )
        return decision, self._basis(rule.settings.get("reservation", {}), context) if acting else None

    def _refusals(self, rule: Rule, row: Row, guards: list[Row], facts: Facts, platform: Platform) -> list[Refusal]:
        out = []
        words = {"role": platform.role, "arch": platform.arch, "hypervisor": platform.hypervisor}
        for entry in (row, *guards):
            if refuse := entry.data.get("refuse"):
                out.append(
                    Refusal(
                        id=entry.id,
                        what=refuse["what"].format(**words),
                        why=refuse["why"],
                        fix=refuse["fix"],
                        where=entry.where,
                        sources=self.knowledge.cite(entry.data.get("sources", [])),
                    )
                )
        if "requires" in row.data and self.knowledge.features[row.data["requires"]["feature"]](facts) is not True:
            need = row.data["requires"]
            out.append(
                Refusal(
                    id=row.id,
                    what=need["what"],
                    why=need["why"],
                    fix=need["fix"],
                    where=row.where,
                    sources=self.knowledge.cite(row.data.get("sources", [])),
                )
            )
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

    def _judge(
        self, name: str, layer: Mapping[str, Any], row: Row, state: tuple[str, str] | None, unproven: bool
    ) -> Alternative:
        """What knowledge says of relying on one layer."""
        kind, why = layer["state"], layer["why"]
        sources = self.knowledge.cite(layer.get("sources", []))
        if kind == "absent":
            verdict = "impossible"
        elif kind == "forbidden":
            verdict = "forbidden"
        elif kind == "supplement":
            verdict, why = "forbidden", f"alone it does not clean up: {why}"
        elif kind == "unproven" and not unproven:
            verdict = "unproven"
        elif state is not None and state[0] == "off":
            verdict, why = "impossible", state[1]
        else:
            verdict = "recommended" if name in row.data.get("recommend", []) else "accepted"
        return Alternative(strategy=name, verdict=verdict, why=why, sources=sources)

    def _layers(
        self,
        strategy: str,
        layers: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, tuple[str, str]],
        rule: Rule,
        facts: Facts,
    ) -> list[Layer]:
        cite = self.knowledge.cite
        first = layers[A]
        wish = rule.settings.get("post_notifiers", "auto")
        forced = bool(first.get("forced")) and facts.kernel.post_notifiers == "Y"
        if strategy == A or first["state"] == "required":
            on, why = True, first["why"]
        elif first["state"] == "forbidden":
            on, why = False, first["why"]
        elif wish != "auto":
            on, why = wish == "on", f"the policy sets it ({rule.id}); {first['why']}"
        elif first.get("default") == "keep":
            on, why = facts.kernel.post_notifiers == "Y", f"left as the kernel set it; {first['why']}"
        else:
            on, why = first.get("default") == "on", first["why"]
        out = [
            Layer(
                name=A,
                state="on" if on else "off",
                why=why,
                sources=cite(first.get("sources", [])),
                forced=forced and on,
            )
        ]
        second = layers[B]
        if second["state"] == "absent":
            out.append(Layer(name=B, state="impossible", why=second["why"], sources=cite(second.get("sources", []))))
        else:
            state, evidence = states[B]
            out.append(
                Layer(name=B, state=state, why=f"{evidence}; {second['why']}", sources=cite(second.get("sources", [])))
            )
        third = layers[C]
        possible = third["state"] not in ("absent", "forbidden")
        out.append(
            Layer(
                name=C,
                state="on" if possible else "impossible",
                why=third["why"],
                sources=cite(third.get("sources", [])),
            )
        )
        return out

    def _passive(self, layers: Mapping[str, Mapping[str, Any]], states: Mapping[str, tuple[str, str]]) -> list[Layer]:
        """The layers of a host that is not touched: what is possible, without any wish."""
        out = []
        for name in LAYERS:
            layer = layers[name]
            state = "impossible" if layer["state"] in ("absent", "forbidden") else states.get(name, ("off", ""))[0]
            out.append(
                Layer(name=name, state=state, why=layer["why"], sources=self.knowledge.cite(layer.get("sources", [])))
            )
        return out

    def _settings(self, rule: Rule, row: Row, guards: list[Row], layers: list[Layer], context: Context) -> Settings:
        s, k = rule.settings, self.knowledge
        capture = k.capture[row.data["capture"]]
        arguments: list[str] = list(capture["arguments"])
        forbidden: list[str] = list(row.data.get("forbid_arguments", []))
        for guard in guards:
            forbidden += guard.data.get("forbid_arguments", [])
            swaps = guard.data.get("replace_arguments", {})
            arguments = [swaps.get(a, a) for a in arguments]
        arguments = ensure(without(arguments, forbidden), row.data.get("add_arguments", []))
        wishes = s.get("capture", {})
        removed = [r for r in wishes.get("remove", []) if not _is_reset(r, capture["reset"])]
        arguments = ensure(without(arguments, removed), [w for w in wishes.get("ensure", []) if w not in forbidden])
        names = {key_of(a) for a in arguments}
        rivals = sorted(other for group in k.exclusive if group & names for other in group - names)
        on = layers[0].state == "on"
        # Where the kernel turns the layer on by itself and it is merely kept, nothing has to be written anywhere.
        kept = layers[0].forced and row.data["layers"][A].get("default") == "keep"
        dump = s.get("dump", {})
        return Settings(
            post_notifiers=None if kept else on,
            capture_ensure=arguments,
            capture_remove=sorted({*forbidden, *removed, *rivals}),
            boot_ensure=["crash_kexec_post_notifiers"] if on and not kept else [],
            boot_remove=[] if on else ["crash_kexec_post_notifiers"],
            target_path=s.get("target", {}).get("path", ""),
            dump_level=dump.get("level"),
            dump_compression=dump.get("compression", ""),
            sysctls={name: str(value) for name, value in sorted(s.get("sysctls", {}).items())},
        )

    def _basis(self, wish: Mapping[str, Any], context: Context) -> _Basis:
        minimum = parse_size(wish["minimum"]) if "minimum" in wish else 0
        if "crashkernel" in wish:
            return _Basis(wish["crashkernel"], "fixed", "the policy fixes it", [], minimum)
        table = next(t for t in self.knowledge.reservations if t.match.test(context) is True)
        return _Basis(table.value, "table", "the distribution's own table", self.knowledge.cite(table.sources), minimum)


@dataclass(frozen=True)
class _Basis:
    """Where a reservation comes from, before it is known how much RAM a host has."""

    text: str
    origin: str
    why: str
    sources: list[Source]
    minimum: int

    def reservation(self, ram: int | None) -> Reservation:
        """The reservation on a host with ``ram`` bytes."""
        text, why = self.text, self.why
        wanted = parse(text).reserve(ram) if ram else None
        if wanted is not None and wanted < self.minimum:
            text, wanted, why = format_size(self.minimum), self.minimum, f"{why}, raised to the policy's minimum"
        if wanted == 0 and ram:
            why += f"; with {format_size(ram)} of RAM the kernel would silently reserve nothing"
        return Reservation(arguments=[text], wanted=wanted, origin=self.origin, why=why, sources=self.sources)


def ram_of(facts: Facts) -> int | None:
    """RAM in bytes, rounded up as the kernel does: firmware and kernel keep a little of the last block for themselves."""
    memory = facts.memory.system_ram or facts.memory.total
    return round_ram(memory) if memory else None


def _is_reset(argument: str, reset: list[str]) -> bool:
    """The arguments that make the layer kdump_reset are not for a policy to remove."""
    return argument in reset or argument in {key_of(a) for a in reset}


def _choose(rule: Rule, row: Row, alternatives: list[Alternative], unproven: bool) -> tuple[str, Refusal | None]:
    """The first layer of the rule's list that may be relied on, or the refusal that says why none may."""
    by_name = {a.strategy: a for a in alternatives}
    for name in rule.strategy:
        if by_name[name].verdict in ("recommended", "accepted"):
            return name, None
    reasons = [f"{n}: {by_name[n].verdict}: {by_name[n].why}" for n in rule.strategy]
    sources = list({s.id: s for n in rule.strategy for s in by_name[n].sources}.values())
    usable = [a.strategy for a in alternatives if a.verdict in ("recommended", "accepted")]
    if usable:
        fix = f"allow {' or '.join(usable)} in rule {rule.id!r}"
    elif any(by_name[n].verdict == "unproven" for n in rule.strategy) and not unproven:
        fix = f"nothing is proven on this platform; `allow_unproven: true` in rule {rule.id!r} accepts the risk"
    else:
        fix = "no layer cleans up on this platform: exclude such hosts"
    what = f"the policy's strategy ({', '.join(rule.strategy)}) is not possible on {row.data['title']}"
    return "", Refusal(id=row.id, what=what, why="; ".join(reasons), fix=fix, where=rule.where, sources=sources)


def _forbidden_wishes(rule: Rule, row: Row, layer: Mapping[str, Any], k: Knowledge) -> list[Refusal]:
    """``post_notifiers`` against what the platform needs."""
    wish = rule.settings.get("post_notifiers", "auto")
    clash = {"on": layer["state"] == "forbidden", "off": layer["state"] == "required"}.get(wish, False)
    if wish == "off" and A in rule.strategy[:1]:
        clash = True
    if not clash:
        return []
    return [
        Refusal(
            id=row.id,
            what=f"the policy orders post_notifiers: {wish} on {row.data['title']}",
            why=layer["why"],
            fix=f"remove post_notifiers from rule {rule.id!r}, or leave such hosts out",
            where=rule.where,
            sources=k.cite(layer.get("sources", [])),
        )
    ]


def replace_reservation(decision: Decision, reservation: Reservation) -> Decision:
    """The same decision with another reservation (planning keeps a larger one that is already there)."""
    settings = msgspec.structs.replace(decision.settings, reservation=reservation)
    return msgspec.structs.replace(decision, settings=settings)
