# SPDX-License-Identifier: Apache-2.0
"""The JSON API. Every route answers GET and nothing else; its documents are described at ``/api/v1/openapi.json``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, TypeVar

import anyio.to_thread
import msgspec
from litestar import Response, Router, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException, ServiceUnavailableException
from litestar.openapi.spec import Example
from litestar.params import Parameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from orchestrator.documents.base import encode
from orchestrator.documents.dashboard import (
    AuditPage,
    FleetStatus,
    HostFull,
    HostPage,
    Pulse,
    RunFull,
    RunHosts,
    RunList,
    WaiverList,
)
from orchestrator.store.browse import ORDERS, Wanted
from orchestrator.web.reader import FRESH, Reader

T = TypeVar("T")

#: Most rows of one answer.
MOST = 500
#: Streams at the same time; a browser that gets none asks again later.
STREAMS = 200

Limit = Annotated[int, Parameter(ge=1, le=MOST, description="At most so many rows.")]
Offset = Annotated[int, Parameter(ge=0, le=1 << 31, description="Rows that come before.")]
Words = Annotated[
    str, Parameter(max_length=200, description="Words that are all somewhere in what is said of the host.")
]
Text = Annotated[str, Parameter(max_length=200)]
States = Annotated[list[str] | None, Parameter(query="state", max_items=30, description="Only in one of these states.")]
Order = Annotated[
    str,
    Parameter(pattern=rf"^-?({'|'.join(ORDERS)})$", description=f"{', '.join(ORDERS)}; with - before it, downwards."),
]
Name = Annotated[str, Parameter(max_length=255, examples=[Example(value="web-01")])]


def reader_of(state: State) -> Reader:
    """The reader of the application."""
    reader: Reader = state.reader
    return reader


def or_404(found: T | None, what: str) -> T:
    """What was found, or the answer that there is no such thing."""
    if found is None:
        raise NotFoundException(detail=what)
    return found


def wanted_of(states: list[str] | None, arch: str, hypervisor: str, strategy: str, tag: str, words: str) -> Wanted:
    """The query of a list of hosts."""
    return Wanted(tuple(s for s in states or () if s), arch, hypervisor, strategy, tag, tuple(words.split()[:10]))


@get("/status", sync_to_thread=True, summary="The numbers of the fleet", operation_id="status")
def status(state: State) -> FleetStatus:
    """The same document as `kdo status --format json`."""
    return reader_of(state).status()


@get("/hosts", sync_to_thread=True, summary="Hosts, some at a time", operation_id="hosts")
def hosts(
    state: State, states: States = None, arch: Text = "", hypervisor: Text = "", strategy: Text = "", tag: Text = "",
    q: Words = "", sort: Order = "host", offset: Offset = 0, limit: Limit = 100,
) -> HostPage:  # fmt: skip
    """`?` as arch or hypervisor stands for hosts of which it is not known."""
    wanted = wanted_of(states, arch, hypervisor, strategy, tag, q)
    return reader_of(state).hosts(wanted, sort.lstrip("-"), sort.startswith("-"), offset, limit)


@get("/hosts/{host:str}", sync_to_thread=True, summary="Everything of one host", operation_id="host")
def host(state: State, host: Name) -> HostFull:
    """State, evidence, decision, settings, checks, what is due, proofs, and the runs that it was in."""
    return or_404(reader_of(state).host(host), f"host {host!r} is not on record")


@get("/runs", sync_to_thread=True, summary="Runs, the newest first", operation_id="runs")
def runs(state: State, kind: Text = "", limit: Limit = 50) -> RunList:
    """kind: sweep, apply, enforce, pull."""
    return reader_of(state).runs(limit, kind)


@get("/runs/{run:str}", sync_to_thread=True, summary="One run and its waves", operation_id="run")
def run(state: State, run: Name) -> RunFull:
    """By its id, a beginning of it that only one has, or `last`."""
    return or_404(reader_of(state).run(run), f"there is no run {run!r}")


@get("/runs/{run:str}/hosts", sync_to_thread=True, summary="Hosts of a run", operation_id="run_hosts")
def run_hosts(
    state: State, run: Name, states: States = None, wave: Annotated[int | None, Parameter(ge=0, le=1 << 31)] = None,
    offset: Offset = 0, limit: Limit = 100,
) -> RunHosts:  # fmt: skip
    """What came of them in that run."""
    found = reader_of(state).run_hosts(run, tuple(states or ()), wave, offset, limit)
    return or_404(found, f"there is no run {run!r}")


@get("/waivers", sync_to_thread=True, summary="Waivers that count", operation_id="waivers")
def waivers(state: State) -> WaiverList:
    """Those that counted for hosts when they were last looked at; the ones that end first, first."""
    return reader_of(state).waivers()


@get("/audit", sync_to_thread=True, summary="The audit trail", operation_id="audit")
def audit(state: State, offset: Offset = 0, limit: Limit = 100) -> AuditPage:
    """The newest entries first. Whether the chain is whole is what `kdo audit verify` says."""
    return reader_of(state).audit(offset, limit)


@get("/pulse", sync_to_thread=True, summary="The fleet at this moment", operation_id="pulse")
def pulse(state: State) -> Pulse:
    """The numbers by state, and the runs that are under way."""
    return reader_of(state).pulse()


@get("/pulse/events", summary="The same whenever it changes", operation_id="pulse_events")
async def pulse_events(state: State) -> ServerSentEvent:
    """Server-sent events `pulse`, each a document as /pulse answers; none while nothing changes but the time."""
    reader = reader_of(state)
    return _stream(state, "pulse", reader.pulse, lambda p: msgspec.structs.replace(p, at=""), lambda _: True)


@get("/runs/{run:str}/events", summary="A run on its way", operation_id="run_events")
async def run_events(state: State, run: Name) -> ServerSentEvent:
    """Server-sent events `run`, each a document as /runs/{run} answers, until the run comes to its end; then `end`."""
    reader = reader_of(state)
    first = or_404(await anyio.to_thread.run_sync(reader.run, run), f"there is no run {run!r}")

    def again() -> RunFull:
        return reader.run(first.run.id) or msgspec.structs.replace(first, alive=False)

    return _stream(state, "run", again, lambda r: msgspec.structs.replace(r, rate=None, left=None), lambda r: r.alive)


def _stream(
    state: State, event: str, ask: Callable[[], T], same: Callable[[T], Any], goes_on: Callable[[T], bool]
) -> ServerSentEvent:
    """A document whenever it is another one than before; a comment every 15 s, so that no proxy ends the connection."""

    async def events() -> AsyncIterator[ServerSentEventMessage]:
        state.streams += 1
        try:
            before, silent = b"", 0.0
            while not state.ending.is_set():
                found = await anyio.to_thread.run_sync(ask)
                shown = encode(same(found))
                if shown != before:
                    before, silent = shown, 0.0
                    yield ServerSentEventMessage(event=event, data=encode(found).decode(), retry=3000)
                elif silent >= 15:
                    silent = 0.0
                    yield ServerSentEventMessage(comment="still here")
                if not goes_on(found):
                    yield ServerSentEventMessage(event="end", data="{}")
                    return
                silent += FRESH
                await _pause(state.ending, FRESH)
        finally:
            state.streams -= 1

    if state.streams >= STREAMS:
        raise ServiceUnavailableException(detail=f"{STREAMS} viewers are here already")
    return ServerSentEvent(events())


async def _pause(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


@get("/metrics", sync_to_thread=True, media_type="text/plain; version=0.0.4; charset=utf-8", tags=["operations"],
     operation_id="metrics", summary="Numbers for Prometheus")  # fmt: skip
def metrics(state: State) -> bytes:
    """At most 100 series a metric: no host, kernel or reason is a label."""
    return reader_of(state).metrics()


@get("/healthz", sync_to_thread=True, media_type="text/plain", tags=["operations"], operation_id="healthz",
     summary="Whether the store can be read", responses={})  # fmt: skip
def healthz(state: State) -> Response[str]:
    """200 "ok", or 503. The only route that asks nobody who they are."""
    alive = reader_of(state).alive()
    return Response("ok\n" if alive else "the store does not answer\n", status_code=200 if alive else 503)


api = Router(
    "/api/v1", tags=["fleet"],
    route_handlers=[status, hosts, host, runs, run, run_hosts, waivers, audit, pulse, pulse_events, run_events],
)  # fmt: skip
