# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file that needs nothing else: no server, no network, no other file.

What hosts say reaches the page as data: the template escapes it, the script sets it as text, and the page's own policy lets no
other script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import Any

import msgspec

from orchestrator import __version__
from orchestrator.documents.base import to_builtins
from orchestrator.documents.findings import Report, ReportHost
from orchestrator.reports.collected import needs_somebody
from orchestrator.reports.grouped import groups
from orchestrator.reports.text import some
from orchestrator.store.browse import waivers_used
from orchestrator.store.database import Database
from orchestrator.store.hosts import STATES
from orchestrator.store.runs import listed, waves

#: Runs and kinds of findings that the page shows.
RUNS, FINDINGS = 20, 200
#: Findings that are shown at once; the others open.
FIRST = 12
#: Fields of a host in the table, in the order that the script expects.
FIELDS = ("host", "state", "arch", "hypervisor", "strategy", "kernel", "proof", "tags", "why", "platform", "rule", "where", "seen",
          "since", "run")  # fmt: skip
#: Lists of a host's detail, in the order that the script expects; its findings come before them.
BEHIND = ("evidence", "contradictions", "trace", "layers", "checks", "changes", "rows", "notes")


@dataclass(frozen=True)
class Around:
    """What the page says beside the hosts: runs with their waves, and waivers that counted. From a store only."""

    runs: Sequence[dict[str, Any]] = ()
    waivers: Sequence[dict[str, Any]] = ()


@dataclass
class _Table:
    """Equal values once, and their numbers in place of them: a fleet says the same few things many times."""

    values: list[Any] = field(default_factory=list)
    numbers: dict[str | bytes, int] = field(default_factory=dict)

    def number(self, value: Any) -> int:
        key = value if isinstance(value, str) else msgspec.json.encode(value)
        if key not in self.numbers:
            self.numbers[key] = len(self.values)
            self.values.append(to_builtins(value))
        return self.numbers[key]


def around(database: Database) -> Around:
    """The last runs and the waivers of a store."""
    runs = []
    for run in listed(database, RUNS):
        parts = [
            {"number": w.number, "name": w.name, "state": w.state, "hosts": w.hosts, "failed": w.failed, "started": w.started,
             "ended": w.ended}
            for w in waves(database, run.id)
        ]  # fmt: skip
        runs.append({"id": run.id, "kind": run.kind, "state": run.state, "who": run.who, "policy": run.policy, "hosts": run.hosts,
                     "created": run.created, "ended": run.ended, "waves": parts})  # fmt: skip
    rows = [dict(zip(("id", "about", "approver", "expires", "hosts"), r, strict=True)) for r in waivers_used(database)]
    return Around(runs, rows)


def page(report: Report, at: datetime, beside: Around | None = None) -> bytes:
    """The whole file. The same report at the same time gives the same bytes."""
    from jinja2 import Environment  # noqa: PLC0415  (only this form needs it)

    assets = files("orchestrator.reports") / "assets"
    script = (assets / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (assets / "report.html").read_text(encoding="utf-8")
    )
    beside = beside or Around()
    text = template.render(
        version=__version__, source=report.source, at=f"{at:%Y-%m-%d %H:%M} UTC", total=len(report.hosts), script_hash=digest,
        bad=sum(needs_somebody(h) for h in report.hosts), states=[(s, n, STATES.get(s, "")) for s, n in report.states.items()],
        matrix=_matrix(report.hosts), findings=[(g.first, len(g.hosts), some(g.hosts)) for g in groups(report.hosts)[:FINDINGS]], first=FIRST,
        runs=[_bars(r) for r in beside.runs], waivers=beside.waivers, today=f"{at:%Y-%m-%d}",
        style=(assets / "report.css").read_text(encoding="utf-8"), script=script, data=_data(report),
    )  # fmt: skip
    return text.encode("utf-8", "replace")


def _matrix(hosts: Iterable[ReportHost]) -> dict[str, Any]:
    """Hypervisors in rows, arches in columns; each cell with its strategies, its states and how many need somebody."""
    cells: dict[tuple[str, str], list[ReportHost]] = {}
    for h in hosts:
        cells.setdefault((h.hypervisor or "?", h.arch or "?"), []).append(h)
    made, rows, columns = {}, Counter[str](), Counter[str]()
    for key, found in cells.items():
        rows[key[0]] += len(found)
        columns[key[1]] += len(found)
        states = Counter(h.state for h in found)
        bad = sum(needs_somebody(h) for h in found)
        made[key] = {
            "hosts": len(found), "bad": bad, "share": f"{100 * bad / len(found):.1f}",
            "strategies": Counter(h.strategy or "none" for h in found).most_common(),
            "states": [(s, states[s], round(100 * states[s] / len(found), 2)) for s in (*STATES, *set(states) - set(STATES)) if s in states],
        }  # fmt: skip
    return {"rows": _order(rows), "columns": _order(columns), "cells": made}


def _order(numbers: Counter[str]) -> list[str]:
    """The most common first, what is not known last."""
    return sorted(numbers, key=lambda name: (name == "?", -numbers[name], name))


def _bars(run: dict[str, Any]) -> dict[str, Any]:
    """A run with each wave's place in its time, in percent."""
    begin, end = _seconds(run["created"]), _seconds(run["ended"])
    known = [t for w in run["waves"] for t in (_seconds(w["started"]), _seconds(w["ended"])) if t is not None]
    last = max([t for t in (begin, end, *known) if t is not None], default=0.0)
    first = begin if begin is not None else last
    span = max(last - first, 0.001)
    bars = []
    for w in run["waves"]:
        start, stop = _seconds(w["started"]), _seconds(w["ended"])
        if start is not None:
            left = min(100 * (start - first) / span, 99.0)
            bars.append({**w, "left": f"{left:.2f}", "width": f"{max(100 * ((stop or last) - start) / span, 0.8):.2f}"})
    return {**run, "bars": bars, "seconds": round(last - first, 1)}


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None


def _data(report: Report) -> str:
    """Everything about the hosts as JSON that may stand inside a script element."""
    texts, things = _Table(), _Table()
    rows = []
    for h in report.hosts:
        fields = [texts.number(" ".join(h.tags) if f == "tags" else getattr(h, f)) for f in FIELDS[1:]]
        d = h.detail
        lists: list[Sequence[Any]] = [h.findings]
        lists += [getattr(d, kind) if d is not None else () for kind in BEHIND]
        rows.append([h.host, *fields, [[things.number(x) for x in items] for items in lists]])
    text = json.dumps({"fields": FIELDS, "lists": ("findings", *BEHIND), "texts": texts.values, "things": things.values, "hosts": rows},
                      ensure_ascii=False, separators=(",", ":"))  # fmt: skip
    # Nothing in it can end the element, or begin a comment in it.
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
