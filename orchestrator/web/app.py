# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: routes, errors, and who may ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, MediaType, Request, Response, Router
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme

from orchestrator import __version__
from orchestrator.documents.dashboard import ProblemSaid
from orchestrator.errors import KdoError
from orchestrator.web import api, pages
from orchestrator.web.guard import Guard, GuardMiddleware
from orchestrator.web.reader import Reader

_ABOUT = (
    "What is on record of a fleet: states, decisions and their reasons, checks, proofs, runs. Read-only. "
    "Times are UTC, ISO 8601; empty text = not on record. A request without a valid credential is answered 401, a query that "
    "cannot be understood 400, a host or run that is not on record 404, a store that does not answer 503."
)


def application(reader: Reader, guard: Guard, broken: Callable[[Exception, str], None]) -> GuardMiddleware:
    """Everything that `kdo serve` answers. ``broken`` hears of errors that are ours, with the path that met them.

    The guard stands around the whole, not in it: a path that nobody has is nobody's business either.
    """
    return GuardMiddleware(_application(reader, broken), guard)


def _application(reader: Reader, broken: Callable[[Exception, str], None]) -> Litestar:
    schemes: dict[str, SecurityScheme | Reference] = {
        "token": SecurityScheme(type="http", scheme="bearer"),
        "browser": SecurityScheme(type="http", scheme="basic"),
    }
    return Litestar(
        route_handlers=[api.api, api.metrics, api.healthz, *pages.HANDLERS],
        state=State({"reader": reader, "streams": 0, "ending": asyncio.Event(), "broken": broken}),
        exception_handlers={HTTPException: _refused, KdoError: _failed, Exception: _broken},
        lifespan=[_life],
        openapi_config=OpenAPIConfig(
            title="kdump-orchestrator", version=__version__, description=_ABOUT, path="/api/v1",
            components=Components(security_schemes=schemes), security=[{"token": []}, {"browser": []}],
            render_plugins=[JsonRenderPlugin(path="/openapi.json")], openapi_router=Router("/api/v1", route_handlers=[], include_in_schema=False),
        ),
        logging_config=None, debug=False,
    )  # fmt: skip


@asynccontextmanager
async def _life(app: Litestar) -> AsyncIterator[None]:
    try:
        yield
    finally:
        app.state.ending.set()
        app.state.reader.close()


def _said(request: Request[Any, Any, Any], problem: ProblemSaid, status: int) -> Response[Any]:
    """As JSON for programs, as a page for people."""
    if request.scope["path"].startswith("/api/"):
        return Response(problem, status_code=status, media_type=MediaType.JSON)
    return pages.problem(request, problem, status)


def _refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    extra = error.extra if isinstance(error.extra, list) else []
    why = "; ".join(f"{e.get('key', '')}: {e.get('message', '')}" for e in extra if isinstance(e, dict))
    return _said(request, ProblemSaid(what=error.detail, where=request.scope["path"], why=why), error.status_code)


def _failed(request: Request[Any, Any, Any], error: KdoError) -> Response[Any]:
    first = error.problems[0]
    return _said(request, ProblemSaid(what=first.what, where=first.where, why=first.why, fix=first.fix), 503)


def _broken(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    request.app.state.broken(error, request.scope["path"])
    return _said(
        request, ProblemSaid(what="this is our fault", where=request.scope["path"], fix="see what kdo serve says"), 500
    )
