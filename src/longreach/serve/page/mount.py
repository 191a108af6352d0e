"""The page becomes part of the application."""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, FastAPI, File, Request, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from longreach.serve.bodies.libraries import UploadBody
from longreach.serve.page.frontier import POLICY as FRONTIER_POLICY
from longreach.serve.page.frontier import frontier_page
from longreach.serve.page.guard import PLACE, Guard
from longreach.serve.page.sessions import Sessions, Visitor
from longreach.serve.page.sign_in import sign_in_routes
from longreach.serve.routes import documents
from longreach.serve.service import Service

RECONNECT = 30.0
"""Seconds for which a page whose connection broke may come back to what it showed."""


def mount(app: FastAPI, service: Service) -> None:
    """Serve the page under `/page`. For one application in a process: NiceGUI has one of its own."""
    from nicegui import ui

    from longreach.serve.page.frame import show

    sessions = Sessions()
    app.include_router(sign_in_routes(sessions))
    app.include_router(_routes())
    app.add_middleware(Guard, service=service, sessions=sessions)
    _log_without_messages(service.log)
    ui.page("/", response_timeout=RECONNECT)(show)
    ui.run_with(
        app,
        title="Longreach",
        favicon=files("longreach.serve.page").joinpath("icon.svg").read_text(encoding="utf-8"),
        dark=None,
        language="en-US",
        mount_path=PLACE,
        reconnect_timeout=RECONNECT,
        message_history_length=200,
        tailwind=False,
        show_welcome_message=False,
    )


def _routes() -> APIRouter:
    """What the page needs beside its socket."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def home() -> Response:
        return RedirectResponse(f"{PLACE}/", 307)

    @router.post(f"{PLACE}/uploads/{{library}}/documents", status_code=202)
    async def upload(library: str, file: Annotated[UploadFile, File()], request: Request) -> UploadBody:
        visitor: Visitor = request.state.visitor
        return await documents.upload(library, visitor.service, await visitor.spend(), file, "{}")

    @router.get(f"{PLACE}/frontier/{{number}}")
    async def frontier(number: int, request: Request) -> Response:
        visitor: Visitor = request.state.visitor
        service, key = visitor.service, await visitor.key()
        page = await service.search_in(lambda: frontier_page(service, key, number))
        return HTMLResponse(page, headers={"Content-Security-Policy": FRONTIER_POLICY})

    return router


class _Without(logging.Handler):
    """Tells `log` that something happened, and where; never what was said of it: it may quote a document."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.log(record.levelno, "the page tells of something", exc_info=record.exc_info)


def _log_without_messages(log: logging.Logger) -> None:
    for name in ("nicegui", "socketio", "engineio"):
        theirs = logging.getLogger(name)
        theirs.handlers = [_Without(log)]
        theirs.propagate = False
