"""The application: routes, and how errors are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from longreach import __version__
from longreach.errors import LongreachError
from longreach.serve.middleware import Around, TooMuch
from longreach.serve.refusals import Refusal, refusal_for
from longreach.serve.routes import asking, chat, completions, documents, health, libraries, models
from longreach.serve.service import Service

DESCRIPTION = """Question answering over documents with a local model, by OpenAI's protocol and Longreach's own. Where
the server asks for keys: `Authorization: Bearer lr-...`."""


def create_app(service: Service, started: Callable[[], Awaitable[None]] | None = None) -> FastAPI:
    """The application of `service`. `started` is awaited beside the first requests: by default, `Service.start`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.ensure_future((started or service.start)())
        yield
        starting.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Longreach",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    for family in (health, models, chat, completions, libraries, documents, asking):
        app.include_router(family.router)

    if service.options.page:
        from longreach.serve.page.mount import mount

        mount(app, service)

    def count(route: str, status: int, seconds: float) -> None:
        service.metrics.requests.labels(route, str(status)).inc()
        service.metrics.seconds.labels(route).observe(seconds)

    app.add_middleware(Around, options=service.options, log=service.log, count=count)
    app.add_exception_handler(LongreachError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    return app


async def _told(request: Request, error: Exception) -> Response:
    refusal = refusal_for(error)
    if refusal.status in (500, 502, 507) and not isinstance(error, Refusal):
        request.app.state.service.log.error("a request failed", exc_info=error)
    return _answer(refusal)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    kinds = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
    name = ".".join(place)
    message = f"{name}: {first['msg']}" if name else str(first["msg"])
    return _answer(Refusal(400, message, param=name or None, code=kinds.get(first["type"], "invalid_value")))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, TooMuch):
        response = _answer(error.refusal)
        response.headers["Connection"] = "close"
        return response
    codes = {404: "not_found", 405: "method_not_allowed"}
    refusal = Refusal(error.status_code, str(error.detail), code=codes.get(error.status_code, "invalid_request"))
    response = _answer(refusal)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed(request))
    return response


def _allowed(request: Request) -> list[str]:
    """The methods that an address takes: each is a route of its own, of which the framework names one."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] != Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


def _answer(refusal: Refusal) -> JSONResponse:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)
