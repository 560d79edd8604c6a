# SPDX-License-Identifier: Apache-2.0
"""What a policy says, held against all platforms that there can be: rules that never apply, strategies that never work.

The space of platforms is walked cell by cell (arch × hypervisor × role × confidential × variant …). In a cell the
values that it does not fix can be anything, so a clause about them is neither true nor false there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

from orchestrator.documents.decision import LAYERS
from orchestrator.errors import PolicyError, Problem
from orchestrator.knowledge.load import Knowledge, Row
from orchestrator.policy.context import Cell
from orchestrator.policy.load import Policy, Rule

ARCHES = ("x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "loongarch64")
HYPERVISORS = (
    ["none", "kvm", "tcg", "hyperv", "xen", "vmware", "powervm", "zvm", "lpar", "bhyve", "acrn", "jailhouse", "parallels", "virtualbox", "apple", "openbsd", "unknown"]
)  # fmt: skip
_GUEST_ROLES = ("guest", "container", "wsl", "uml")
_CONFIDENTIAL = {
    "x86_64": ("none", "sev", "sev-es", "sev-snp", "tdx", "unknown"),
    "aarch64": ("none", "cca", "pkvm", "unknown"),
}
_ONLY = {"powervm": "ppc64le", "zvm": "s390x", "lpar": "s390x"}


@cache
def cells() -> tuple[Cell, ...]:
    """Every platform that can be: impossible combinations (z/VM on arm64) are left out."""
    return tuple(_cells())


def _cells() -> Iterator[Cell]:
    for arch, hypervisor in product(ARCHES, HYPERVISORS):
        if _ONLY.get(hypervisor, arch) != arch:
            continue
        roles = ["host", "container"] if hypervisor == "none" else list(_GUEST_ROLES)
        if hypervisor == "unknown":
            roles += ["host", "unknown"]
        if hypervisor == "hyperv":
            roles += ["root", "l1vh"]
        if hypervisor == "xen":
            roles += ["dom0"]
        if hypervisor == "lpar":
            roles += ["host"]
        variants = ["pv", "hvm", "pvh"] if hypervisor == "xen" else [""]
        for role, confidential, variant, ambiguous in product(
            roles, _CONFIDENTIAL.get(arch, ("none",)), variants, (False, True)
        ):
            if confidential not in ("none", "unknown") and role != "guest":
                continue
            hosts = ("", "sev-snp", "tdx") if role == "host" and arch == "x86_64" else ("",)
            for confidential_host in hosts:
                yield Cell(
                    {
                        "arch": arch, "hypervisor": hypervisor, "role": role, "confidential": confidential, "variant": variant or None,
                        "ambiguous": ambiguous, "confidential_host": confidential_host,
                    }
                )  # fmt: skip


def _rows_for(cell: Cell, knowledge: Knowledge) -> list[Row]:
    """Rows of knowledge that can be the platform's row in this cell."""
    out = []
    for row in knowledge.rows:
        answer = row.match.test(cell)
        if answer is not False:
            out.append(row)
        if answer is True:
            break
    return out


def _possible(row: Row, strategy: str, unproven: bool) -> str:
    """Why a strategy can never work on a row's platform; empty when it can."""
    if "refuse" in row.data:
        return str(row.data["refuse"]["why"])
    layer = row.data["layers"][strategy]
    if layer["state"] in ("absent", "forbidden", "supplement") or (layer["state"] == "unproven" and not unproven):
        return f"{row.data['title']}: {strategy} is {'not enough alone' if layer['state'] == 'supplement' else layer['state']}: {layer['why']}"
    return ""


def _reach(policy: Policy) -> dict[str, list[Cell]]:
    """Cells in which each rule can be the one that decides."""
    reach: dict[str, list[Cell]] = {rule.id: [] for rule in policy.rules}
    for cell in cells():
        for rule in policy.rules:
            answer = rule.match.test(cell)
            if answer is not False:
                reach[rule.id].append(cell)
            if answer is True:
                break
    return reach


def lint(policy: Policy, knowledge: Knowledge) -> list[Problem]:
    """Everything that is wrong or doubtful with a policy whose text is valid."""
    reach = _reach(policy)
    problems: list[Problem] = []
    for index, rule in enumerate(policy.rules):
        if not reach[rule.id]:
            problems.append(_unreachable(policy, index, rule))
            continue
        if rule.strategy:
            problems += _impossible(policy, rule, reach[rule.id], knowledge)
    return problems


def _unreachable(policy: Policy, index: int, rule: Rule) -> Problem:
    where = rule.at("match")
    mine = [c for c in cells() if rule.match.test(c) is not False]
    if not mine:
        return Problem(
            f"rule {rule.id!r} can never match",
            where,
            "its clauses contradict each other on every platform",
            "mend or remove it",
            "P020",
        )
    blockers = [r for r in policy.rules[:index] if any(r.match.test(c) is True for c in mine)]
    names = ", ".join(f"{r.id!r} ({r.where})" for r in blockers)
    if rule.id == "default":
        return Problem(
            "the default can never apply",
            where,
            f"earlier rules take every host: {names}",
            "that may be wanted",
            "P022",
            "warning",
        )
    other = [r for r in blockers if (r.strategy, r.refuse, r.settings) != (rule.strategy, rule.refuse, rule.settings)]
    clash = " and decide otherwise: the two contradict each other" if other else ""
    return Problem(
        f"rule {rule.id!r} never applies",
        where,
        f"earlier rules take all of its hosts{clash}: {names}",
        "move it up, narrow the others, or remove it",
        "P021",
    )


def _impossible(policy: Policy, rule: Rule, reach: list[Cell], knowledge: Knowledge) -> list[Problem]:
    """A rule none of whose layers can work anywhere it applies is an error; one dead entry of the list a warning."""
    unproven = bool(rule.settings.get("allow_unproven", False))
    rows = list({row.id: row for cell in reach for row in _rows_for(cell, knowledge)}.values())
    usable = [row for row in rows if "refuse" not in row.data]
    where = rule.at("strategy")
    reasons = {s: [_possible(row, s, unproven) for row in (usable or rows)] for s in rule.strategy}
    dead = [s for s in rule.strategy if all(reasons[s])]
    if len(dead) == len(rule.strategy):
        why = "; ".join(dict.fromkeys(reasons[s][0] for s in dead))
        sources = {
            s
            for row in (usable or rows)[:1]
            for name in dead
            for s in row.data.get("layers", {}).get(name, {}).get("sources", [])
        }
        cited = "; ".join(knowledge.sources[s].title for s in sorted(sources))
        works = [s for s in LAYERS if usable and not all(_possible(row, s, unproven) for row in usable)]
        fix = f"use {' or '.join(works)}" if works else "use refuse: these hosts cannot kdump"
        return [
            Problem(
                f"rule {rule.id!r} orders what none of its platforms can do",
                where,
                f"{why} (source: {cited or 'the knowledge data'})",
                fix,
                "P030",
            )
        ]
    wish = rule.settings.get("post_notifiers")
    states = {row.data["layers"]["crash_kexec_post_notifiers"]["state"] for row in usable}
    if (wish == "on" and states == {"forbidden"}) or (wish == "off" and states == {"required"}):
        why = usable[0].data["layers"]["crash_kexec_post_notifiers"]["why"]
        return [
            Problem(
                f"rule {rule.id!r} sets post_notifiers: {wish} where it must not be", where, why, "remove it", "P031"
            )
        ]
    return [
        Problem(f"rule {rule.id!r}: {s} can never be taken", rule.at("strategy", rule.strategy.index(s)), reasons[s][0], "remove it", "P032", "warning")
        for s in dead
    ]  # fmt: skip


def require_sound(policy: Policy, knowledge: Knowledge) -> None:
    """Raise :class:`PolicyError` for every error (warnings are for ``kdo policy lint``)."""
    errors = [p for p in lint(policy, knowledge) if p.severity == "error"]
    if errors:
        raise PolicyError(errors)
