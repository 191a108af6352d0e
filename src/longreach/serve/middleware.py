"""Around every request: a name for it, limits of size and time, one line in the log, its count."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from logging import Logger
from typing import Any

from fastapi import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longreach.serve.options import ServeOptions
from longreach.serve.refusals import Refusal, refusal_for

UPLOADS = "/documents"
"""What the path of an upload ends with."""


class TooMuch(HTTPException):
    """A body that is too large, or takes too long to come."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.status, str(refusal))
        self.refusal = refusal


class Around:
    """ASGI middleware. `count(route, status, seconds)` is told of each request; `state.fields` of its scope are logged:
    routes put there what it cost."""

    def __init__(
        self, app: ASGIApp, options: ServeOptions, log: Logger, count: Callable[[str, int, float], None]
    ) -> None:
        self._app = app
        self._options = options
        self._log = log
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, name, status = time.perf_counter(), f"req-{secrets.token_hex(8)}", 0
        fields: dict[str, Any] = {}
        scope.setdefault("state", {})["fields"] = fields

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                safe = [(b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]
                headers = [*message.get("headers", ()), *safe]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, self._limited(scope, receive), sending)
        except Exception as error:
            # Not raised any further: whoever logs it above would log its message too, which may quote a document.
            self._log.error("a request failed", exc_info=error)
            if not status:
                refusal = refusal_for(error)
                await JSONResponse(refusal.body, refusal.status, refusal.headers)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "other")  # never the path itself: it may name a document
            self._count(route, status, seconds)
            about = {"request": name, "method": scope["method"], "route": route, "status": status}
            self._log.info("request", extra={"fields": {**about, "seconds": round(seconds, 4), **fields}})

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        upload = scope["method"] == "POST" and scope["path"].endswith(UPLOADS)
        text = scope["method"] == "PUT"
        most = self._options.upload_bytes if upload or text else self._options.body_bytes
        told = dict(scope["headers"]).get(b"content-length", b"")
        until = time.monotonic() + self._options.body_seconds
        got, whole = 0, False

        async def receiving() -> Message:
            nonlocal got, whole
            if whole:
                return await receive()  # the body is here: what comes now is that the client has gone
            if told.isdigit() and int(told) > most:
                raise TooMuch(_too_large(most))
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise TooMuch(Refusal(408, "the request took too long to come", code="slow_request")) from None
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                whole = not message.get("more_body", False)
            if got > most:
                raise TooMuch(_too_large(most))
            return message

        return receiving


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the request is larger than {most} bytes", code="too_large")
