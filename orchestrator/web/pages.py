# SPDX-License-Identifier: Apache-2.0
"""The pages. They work without script; script only brings what has changed meanwhile. Links are relative, so that a proxy may
put the whole under any path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Annotated, Any
from urllib.parse import urlencode

import jinja2
from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.params import Parameter

from orchestrator import __version__
from orchestrator.documents.dashboard import FleetStatus, ProblemSaid
from orchestrator.reports.progress import spent
from orchestrator.store.hosts import FINE, STATES
from orchestrator.store.runs import BAD
from orchestrator.web.api import Limit, Offset, Order, States, Text, Words, or_404, reader_of, wanted_of

_ASSETS = files("orchestrator.web") / "assets"
_KINDS = {"dashboard.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"}
#: Hosts that a run's page names at once.
NAMED = 100


@cache
def _asset(name: str) -> tuple[bytes, str]:
    """A file of the pages, and the hash that its address carries."""
    data = (_ASSETS / name).read_bytes()
    if name == "dashboard.css":  # what the report says in colours, the dashboard says in the same
        data = (files("orchestrator.reports") / "assets" / "report.css").read_bytes() + data
    return data, hashlib.sha256(data).hexdigest()[:12]


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_ASSETS / name).read_text(encoding="utf-8")), autoescape=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    made.filters["number"] = lambda n: f"{n:,}"
    made.filters["moment"] = lambda text: text[:19].replace("T", " ")
    made.filters["spent"] = spent
    made.filters["css"] = lambda state: state.replace(" ", "-")
    made.globals.update(version=__version__, meanings=STATES,
                        asset=lambda name: f"static/{name}?v={_asset(name)[1]}")  # fmt: skip
    return made


def _page(request: Request[Any, Any, State], name: str, code: int = 200, **values: Any) -> Response[bytes]:
    depth = max(request.scope["path"].rstrip("/").count("/") - 1, 0)
    text = _templates().get_template(name).render(up="../" * depth, source=request.app.state.reader.name, **values)
    return Response(text.encode("utf-8", "replace"), status_code=code, media_type="text/html; charset=utf-8")


def problem(request: Request[Any, Any, Any], said: ProblemSaid, status: int) -> Response[bytes]:
    """A page that says why there is none."""
    return _page(request, "problem.html", status, said=said, number=status)


def _matrix(status: FleetStatus, strategies: Mapping[tuple[str, str], Mapping[str, int]]) -> dict[str, Any]:
    """Hypervisors in rows, arches in columns, the most common first."""
    cells: dict[tuple[str, str], dict[str, int]] = {}
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    for c in status.platforms:
        cells.setdefault((c.hypervisor or "?", c.arch or "?"), {})[c.state] = c.hosts
        rows[c.hypervisor or "?"] = rows.get(c.hypervisor or "?", 0) + c.hosts
        columns[c.arch or "?"] = columns.get(c.arch or "?", 0) + c.hosts
    made = {}
    for (row, column), states in cells.items():
        total, left, bars = sum(states.values()), 0.0, []
        for state in (s for s in (*STATES, *sorted(set(states) - set(STATES))) if s in states):
            share = 100 * states[state] / total
            bars.append((state, states[state], f"{left:.2f}", f"{share:.2f}"))
            left += share
        chosen = strategies.get(("" if column == "?" else column, "" if row == "?" else row), {})
        made[(row, column)] = {
            "hosts": total, "bad": sum(n for s, n in states.items() if s not in FINE), "bars": bars,
            "strategies": sorted(((n or "none", c) for n, c in chosen.items()), key=lambda x: -x[1])[:3],
        }  # fmt: skip
    return {"cells": made, "rows": _ranked(rows), "columns": _ranked(columns)}


def _ranked(numbers: dict[str, int]) -> list[str]:
    return sorted(numbers, key=lambda name: (name == "?", -numbers[name], name))


@get("/", sync_to_thread=True, include_in_schema=False)
def fleet(request: Request[Any, Any, State], state: State) -> Response[bytes]:
    """The fleet in numbers, its platforms, its last runs."""
    reader = reader_of(state)
    status = reader.status()
    return _page(request, "fleet.html", status=status, matrix=_matrix(status, reader.cells()), pulse=reader.pulse(),
                 runs=reader.runs(10).runs)  # fmt: skip


@get("/hosts", sync_to_thread=True, include_in_schema=False)
def host_list(
    request: Request[Any, Any, State], state: State, states: States = None, arch: Text = "", hypervisor: Text = "",
    strategy: Text = "", tag: Text = "", q: Words = "", sort: Order = "host", offset: Offset = 0, limit: Limit = 100,
) -> Response[bytes]:  # fmt: skip
    """A list of hosts; what is asked for stands in the address."""
    wanted = wanted_of(states, arch, hypervisor, strategy, tag, q)
    found = reader_of(state).hosts(wanted, sort.lstrip("-"), sort.startswith("-"), offset, limit)
    asked: list[tuple[str, str]] = [("state", s) for s in states or () if s]
    asked += [(k, v) for k, v in (("arch", arch), ("hypervisor", hypervisor), ("strategy", strategy), ("tag", tag), ("q", q)) if v]  # fmt: skip

    def link(**change: Any) -> str:
        """The same list, with something else."""
        given = {"sort": sort, "offset": 0, "limit": limit, **change}
        usual = {"sort": "host", "offset": 0, "limit": 100}
        return "?" + urlencode([*asked, *((k, v) for k, v in given.items() if v != usual[k])])

    def without(which: tuple[str, str]) -> str:
        return "?" + urlencode([a for a in asked if a != which])

    return _page(request, "hosts.html", found=found, asked=asked, states=states or [], q=q, sort=sort, link=link, limit=limit,
                 without=without, every=list(STATES))  # fmt: skip


@get("/hosts/{host:str}", sync_to_thread=True, include_in_schema=False)
def host(request: Request[Any, Any, State], state: State, host: str) -> Response[bytes]:
    """One host and everything behind its state."""
    found = or_404(reader_of(state).host(host), f"host {host[:255]!r} is not on record")
    return _page(request, "host.html", found=found, host=found.host, detail=found.host.detail)


@get("/runs", sync_to_thread=True, include_in_schema=False)
def run_list(request: Request[Any, Any, State], state: State, limit: Limit = 50) -> Response[bytes]:
    """The newest runs."""
    return _page(request, "runs.html", runs=reader_of(state).runs(limit).runs)


@get("/runs/{run:str}", sync_to_thread=True, include_in_schema=False)
def run(
    request: Request[Any, Any, State], state: State, run: str,
    wave: Annotated[int | None, Parameter(ge=0, le=1 << 31)] = None, states: States = None, offset: Offset = 0,
) -> Response[bytes]:  # fmt: skip
    """One run on its way, and the hosts in it that need somebody."""
    reader = reader_of(state)
    found = or_404(reader.run(run), f"there is no run {run[:255]!r}")
    hosts = or_404(reader.run_hosts(found.run.id, tuple(states or BAD), wave, offset, NAMED), "it is gone")
    return _page(
        request, "run.html", found=found, run=found.run, hosts=hosts, states=states or [], wave=wave, most=NAMED
    )


@get("/waivers", sync_to_thread=True, include_in_schema=False)
def waiver_list(request: Request[Any, Any, State], state: State) -> Response[bytes]:
    """The waivers that count."""
    return _page(
        request, "waivers.html", waivers=reader_of(state).waivers().waivers, today=f"{datetime.now(UTC):%Y-%m-%d}"
    )


@get("/audit", sync_to_thread=True, include_in_schema=False)
def audit_list(request: Request[Any, Any, State], state: State, offset: Offset = 0) -> Response[bytes]:
    """Who did what."""
    return _page(request, "audit.html", found=reader_of(state).audit(offset, 100))


@get("/static/{name:str}", sync_to_thread=False, include_in_schema=False)
def static(name: str) -> Response[bytes]:
    """Style and script; their addresses carry their hash, so a browser may keep them."""
    kind = or_404(_KINDS.get(name), "there is no such file")
    keep = {"cache-control": "private, max-age=31536000, immutable"}
    return Response(_asset(name)[0], media_type=kind, headers=keep)


@get("/favicon.ico", sync_to_thread=False, include_in_schema=False)
def icon() -> Response[None]:
    """There is none; browsers ask for it by themselves."""
    return Response(None, status_code=204)


HANDLERS = (fleet, host_list, host, run_list, run, waiver_list, audit_list, static, icon)
