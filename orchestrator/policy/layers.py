# SPDX-License-Identifier: Apache-2.0
"""The three layers on one platform: what knowledge says of each, which one is relied on, what each is set to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.documents.decision import LAYERS, Alternative, Layer, Refusal
from orchestrator.documents.facts import Facts
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy.load import Rule

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


def judge(
    name: str, layer: Mapping[str, Any], row: Row, state: tuple[str, str] | None, unproven: bool, knowledge: Knowledge
) -> Alternative:
    """What knowledge says of relying on one layer."""
    kind, why = layer["state"], layer["why"]
    sources = knowledge.cite(layer.get("sources", []))
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


def notifiers(layer: Mapping[str, Any], strategy: str, rule: Rule) -> tuple[bool | None, str]:
    """Whether the layer crash_kexec_post_notifiers is wanted (``None``: as the kernel sets it), and why."""
    wish, why = rule.settings.get("post_notifiers", "auto"), str(layer["why"])
    if strategy == A or layer["state"] == "required":
        return True, why
    if layer["state"] == "forbidden":
        return False, why
    if wish != "auto":
        return wish == "on", f"the policy sets it ({rule.id}); {why}"
    if layer.get("default") == "keep":
        return None, f"left as the kernel set it; {why}"
    return layer.get("default") == "on", why


def active(
    strategy: str,
    layers: Mapping[str, Mapping[str, Any]],
    states: Mapping[str, tuple[str, str]],
    rule: Rule,
    facts: Facts,
    knowledge: Knowledge,
) -> list[Layer]:
    """All three layers of a host that is acted upon."""
    cite = knowledge.cite
    first = layers[A]
    present = facts.kernel.post_notifiers == "Y"
    forced = bool(first.get("forced")) and present
    wanted, why = notifiers(first, strategy, rule)
    on = present if wanted is None else wanted
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


def passive(
    layers: Mapping[str, Mapping[str, Any]], states: Mapping[str, tuple[str, str]], knowledge: Knowledge
) -> list[Layer]:
    """The layers of a host that is not touched: what is possible, without any wish."""
    out = []
    for name in LAYERS:
        layer = layers[name]
        state = "impossible" if layer["state"] in ("absent", "forbidden") else states.get(name, ("off", ""))[0]
        out.append(Layer(name=name, state=state, why=layer["why"], sources=knowledge.cite(layer.get("sources", []))))
    return out


def choose(rule: Rule, row: Row, alternatives: list[Alternative], unproven: bool) -> tuple[str, Refusal | None]:
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


def forbidden_wishes(rule: Rule, row: Row, layer: Mapping[str, Any], k: Knowledge) -> list[Refusal]:
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
