# SPDX-License-Identifier: Apache-2.0
"""From two looks to what has turned between them: pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.documents.verdict import Check
from orchestrator.documents.watch import Turned, WatchLine, WatchState


def turned(before: WatchState | None, after: WatchState, checks: Sequence[Check]) -> list[Turned]:
    """Checks that are other ones than before; of a first look, those that are not fine."""
    evidence = {c.id: c for c in checks}
    old = before.checks if before is not None else {}
    out: list[Turned] = []
    for id in sorted({*old, *after.checks}):
        was, now = old.get(id, ""), after.checks.get(id, "")
        if was == now or (before is None and now in ("pass", "skip")):
            continue
        check = evidence.get(id)
        shown = (check.evidence, check.fix) if check is not None else ("", "")
        out.append(Turned(id=id, before=was, after=now, evidence=shown[0], fix=shown[1] if now != "pass" else ""))
    return out


def text(line: WatchLine) -> str:
    """The line for people. What it is made of came from the host; whoever prints it cleans it."""
    parts = [f"{line.at} {line.host}: {line.kind}"]
    now = line.after
    if line.kind == "change" and line.before is not None and now is not None:
        old, new = _state(line.before), _state(now)
        parts.append(new if old == new else f"{old} → {new}")
    elif now is not None:
        parts.append(_state(now))
    if line.reasons:
        parts.append("because " + "; ".join(_reason(r.what, r.seen, r.count) for r in line.reasons))
    if line.turned:
        parts.append("; ".join(f"{t.id} {t.before or '-'} → {t.after or '-'}" for t in line.turned))
    parts += [f"{p.what}{f' ({p.why})' if p.why else ''}" for p in line.problems]
    if line.kind in ("heartbeat", "end"):
        parts.append(f"{line.looks} looks, {line.events} events")
    return " | ".join(parts)


def _state(state: WatchState) -> str:
    plan = {"changes": f"drift: {state.changes} changes ({state.action})", "none": "as decided"}.get(
        state.plan, state.plan
    )
    return ", ".join(dict.fromkeys(p for p in (state.status, state.strategy, plan) if p))


def _reason(what: str, seen: str, count: int) -> str:
    times = f", {count} times" if count > 1 else ""
    return f"{what}{f' ({seen}{times})' if seen else ''}"
