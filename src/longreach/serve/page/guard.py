"""Before anything of the page: who asks, from where, and what a browser may do with the answer."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longreach.serve.page.sessions import Sessions, visitor_of
from longreach.serve.refusals import Refusal
from longreach.serve.service import Service

PLACE = "/page"
SIGN_IN = f"{PLACE}/sign-in"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""What NiceGUI draws is compiled in the browser, hence 'unsafe-eval'. Nothing is loaded from, or sent, elsewhere."""
_HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-robots-tag": b"noindex",
}


class Guard:
    """ASGI middleware: lets nobody without a session to the page, to what it is drawn with or to its socket. Routes
    find the visitor in `state.visitor`."""

    def __init__(self, app: ASGIApp, service: Service, sessions: Sessions) -> None:
        self._app = app
        self._service = service
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" or (scope["type"] == "http" and _within(scope["path"])):
            await self._guarded(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                known = {name.lower() for name, _ in headers}
                headers += [(name, value) for name, value in _HEADERS.items() if name not in known]
                message = {**message, "headers": headers}
            await send(message)

        try:
            if scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD"):
                same_origin(connection)
            if scope["path"] != SIGN_IN:
                state = scope.setdefault("state", {})
                state["visitor"] = await asyncio.to_thread(visitor_of, self._service, self._sessions, connection)
                if scope["type"] == "http":
                    state["fields"]["key"] = state["visitor"].session.key_id if state["visitor"].session else ""
        except Refusal as refusal:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            elif refusal.status == 401 and scope["method"] == "GET":
                await RedirectResponse(SIGN_IN, 303)(scope, receive, sending)
            else:
                await JSONResponse(refusal.body, refusal.status, refusal.headers)(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


def same_origin(connection: HTTPConnection) -> None:
    """Raises Refusal, 403, where a page of another origin is behind a request, or that is not told: browsers do."""
    origin = urlsplit(connection.headers.get("origin", ""))
    if not origin.netloc or origin.netloc != connection.headers.get("host", ""):
        raise Refusal(403, "this must come from the page itself", code="cross_site")


def _within(path: str) -> bool:
    return path == PLACE or path.startswith(f"{PLACE}/")
