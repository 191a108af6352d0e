"""A request that works with the engine: from the gate to the end of its answer, or to its client's going away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from longreach.errors import LongreachError
from longreach.serve.bodies.common import Budget
from longreach.serve.errand import Errand
from longreach.serve.gate import Pass
from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal, refusal_for
from longreach.serve.service import Service
from longreach.types import Usage

T = TypeVar("T")
GONE = 499
"""The status of a request whose client went away, in the log alone: nobody is there to be told."""


class Visit:
    """What a request has here, and the `fields` that the log tells of it; `close` gives it back."""

    def __init__(self, service: Service, errand: Errand, place: Pass, fields: dict[str, Any]) -> None:
        self.service = service
        self.errand = errand
        self._place = place
        self._fields = fields

    def note(self, usage: Usage) -> None:
        """Let the log know what was spent."""
        for name in ("prompt_tokens", "reused_tokens", "generated_tokens"):
            self._fields[name] = self._fields.get(name, 0) + getattr(usage, name)

    def close(self) -> None:
        self.errand.cancel()
        self._place.leave()


class EventStream(StreamingResponse):
    """Server-sent events. However it ends, `ended` is called."""

    media_type = "text/event-stream"
    ended: Callable[[], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self.ended is not None:
                self.ended()


async def visited(
    service: Service, request: Request, key: Key, budget: Budget, work: Callable[[Visit], Awaitable[T]]
) -> T:
    """Let `work` be done when it is its turn. Where the client goes away meanwhile, all is given back at once; so it is
    when an event stream that `work` gives has ended."""
    errand = service.errand(key, budget.timeout)
    service.gate.shared = bool(key.id)  # while there are no keys, all are one
    place = await unless_gone(request, service.gate.enter(key.tenant, errand.left))
    visit = Visit(service, errand, place, request.state.fields)
    try:
        result = await unless_gone(request, work(visit))
    except BaseException:
        visit.close()
        raise
    if isinstance(result, EventStream):
        result.ended = visit.close
    else:
        visit.close()
    return result


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled where the client goes away first. Raises Refusal then."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(GONE, "the client went away", code="client_gone")
        return task.result()
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def in_thread(service: Service, make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """What an iterator gives that waits for the engine, taken in a thread."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, T | Exception | None]] = asyncio.Queue()

    def run() -> None:
        try:
            for item in make():
                loop.call_soon_threadsafe(queue.put_nowait, ("item", item))
            loop.call_soon_threadsafe(queue.put_nowait, ("end", None))
        except Exception as error:
            loop.call_soon_threadsafe(queue.put_nowait, ("error", error))

    running = asyncio.ensure_future(service.read_in(run))
    try:
        while True:
            kind, item = await queue.get()
            if kind == "end":
                return
            if isinstance(item, Exception):
                raise item
            yield item  # type: ignore[misc]
    finally:
        running.cancel()


def event(body: BaseModel | str, name: str = "") -> bytes:
    """One server-sent event."""
    data = body if isinstance(body, str) else body.model_dump_json(exclude_none=True)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data}\n\n".encode("utf-8", "replace")


async def with_errors(events: AsyncIterator[bytes], service: Service, name: str = "") -> AsyncIterator[bytes]:
    """`events`, and what goes wrong meanwhile as the last of them: the status is sent by then."""
    try:
        async for one in events:
            yield one
    except Exception as error:
        if not isinstance(error, LongreachError):
            service.log.error("a stream failed", exc_info=True)
        yield event(json.dumps(refusal_for(error).body), name)
