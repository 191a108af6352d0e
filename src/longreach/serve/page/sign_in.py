"""Signing in with a key, and out."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from longreach.serve.page.guard import PLACE, SIGN_IN
from longreach.serve.page.sessions import COOKIE, LASTS, Sessions
from longreach.serve.routes.common import Here

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_BAD = "This is no good key. Has it been revoked, or was a part of it left out?"


def sign_in_routes(sessions: Sessions) -> APIRouter:
    """A form, what it is sent to, and the way out."""
    router = APIRouter(include_in_schema=False)

    @router.get(SIGN_IN)
    async def form(service: Here) -> Response:
        return _form() if service.access.asks else RedirectResponse(f"{PLACE}/", 303)

    @router.post(SIGN_IN)
    async def sign_in(service: Here, request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
        found = await asyncio.to_thread(service.access.keys.find, key.strip())
        if found is None:
            return _form(_BAD)
        request.state.fields["key"] = found.id
        service.access.rates.take(found)
        answer = RedirectResponse(f"{PLACE}/", 303)
        answer.set_cookie(
            COOKIE,
            sessions.begin(found),
            max_age=LASTS,
            path=PLACE,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @router.post(f"{PLACE}/sign-out")
    async def sign_out(request: Request) -> Response:
        session = request.state.visitor.session
        if session is not None:
            sessions.end(session)
        answer = RedirectResponse(SIGN_IN, 303)
        answer.delete_cookie(COOKIE, path=PLACE)
        return answer

    return router


def _form(complaint: str = "") -> Response:
    page = files("longreach.serve.page").joinpath("sign_in.html").read_text(encoding="utf-8")
    told = page.replace("{{complaint}}", complaint)
    return HTMLResponse(told, 401 if complaint else 200, {"Content-Security-Policy": POLICY})
