# SPDX-License-Identifier: Apache-2.0
"""Other strategies and forbidden settings: a policy bent towards one of them, or a guest's own switch thrown by hand.

A policy can never order what knowledge forbids. An experiment can, in a guest that is thrown away: it has to fail the
predicted way, or knowledge is wrong.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.documents.base import digest
from orchestrator.documents.decision import LAYERS, Decision
from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.errors import InvalidInput
from orchestrator.knowledge.load import Knowledge
from orchestrator.lab.guest import Guest
from orchestrator.policy.context import Context
from orchestrator.policy.load import Policy

NOTIFIERS, HANDLER, RESET = LAYERS
SWITCH: Final = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"
KDUMP_TOOLS: Final = "/etc/default/kdump-tools"


def bent(policy: Policy, strategy: str = "", settings: Mapping[str, Any] | None = None) -> Policy:
    """The policy with one strategy instead of every rule's own, and settings on top of every rule and override."""
    if not strategy and not settings:
        return policy
    wanted = dict(settings or {})
    rules = tuple(
        replace(r, strategy=(strategy,) if strategy and r.strategy else r.strategy, settings={**r.settings, **wanted})
        for r in policy.rules
    )
    overrides = tuple(replace(o, settings={**o.settings, **{k: wanted[k] for k in wanted if k in o.settings}})
                      for o in policy.overrides)  # fmt: skip
    hashed = digest([policy.hash, strategy, wanted])
    return replace(policy, rules=rules, overrides=overrides, hash=hashed)


@dataclass(frozen=True)
class Experiment:
    """One layer set against the decision: ``crash_kexec_post_notifiers=on``, ``=off`` or ``kdump_reset=off``."""

    layer: str
    on: bool

    def __str__(self) -> str:
        return f"{self.layer}={'on' if self.on else 'off'}"


def parse(text: str) -> Experiment | None:
    """An experiment as it is written; ``none`` is nothing. Raises :class:`InvalidInput` for one that cannot be made."""
    if text == "none":
        return None
    layer, _, state = text.partition("=")
    possible = [f"{NOTIFIERS}=on", f"{NOTIFIERS}=off", f"{RESET}=off"]
    if text not in possible:
        why = "it is part of the kernel: nobody can set it" if layer == HANDLER else ""
        raise InvalidInput(f"there is no experiment {text!r}", why=why, fix=f"one of: {', '.join(possible)}")
    return Experiment(layer, state == "on")


def allowed(known: Knowledge, arch: str) -> list[str]:
    """The layers that may be relied on in an emulated guest of that architecture, best first."""
    guest = Context(Facts(), Platform(arch=arch, hypervisor="tcg", role="guest"), known.features)
    row = next(r for r in known.rows if r.match.test(guest) is True)
    fit = [
        name for name in LAYERS if row.data.get("layers", {}).get(name, {}).get("state") in ("sufficient", "required")
    ]
    best = row.data.get("recommend", [])
    return sorted(fit, key=lambda name: (name not in best, LAYERS.index(name)))


def predicted(experiment: Experiment | None, decision: Decision, known: Knowledge) -> str:
    """What knowledge says comes of it: dumped, lost, or "" where it says nothing."""
    if experiment is None:
        return "dumped"
    row = next((r for r in known.rows if decision.knowledge and r.id == decision.knowledge[0]), None)
    state = row.data["layers"][experiment.layer]["state"] if row is not None and "layers" in row.data else ""
    if experiment.on:
        return {"forbidden": "lost", "sufficient": "dumped", "required": "dumped", "supplement": "dumped"}.get(
            state, ""
        )
    if state == "required":
        return "lost"
    return "" if decision.strategy == experiment.layer else "dumped"


def perform(guest: Guest, experiment: Experiment, reset_arguments: list[str]) -> None:
    """Throw the switch in the running guest, and look that it was thrown."""
    if experiment.layer == NOTIFIERS:
        wanted = "Y" if experiment.on else "N"
        guest.ssh(f"echo {wanted} > {SWITCH} && grep -qx {wanted} {SWITCH}")
        return
    keys = [argument.partition("=")[0] for argument in reset_arguments]
    without = "; ".join(rf"/^KDUMP_CMDLINE_APPEND=/s/([ \"']){key}(=[^ \"']*)?/\1/g" for key in keys)
    guest.ssh(f"sed -i -E {shlex.quote(without)} {KDUMP_TOOLS} && kdump-config unload && kdump-config load", 300)
    for key in keys:
        guest.ssh(f"! grep -E '^KDUMP_CMDLINE_APPEND=.*{key}' {KDUMP_TOOLS}")
