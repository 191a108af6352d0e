"""A question of the page on its way through the gate, as a request of a program goes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from typing import Any

from longreach.reader import Event
from longreach.serve.access import may_read
from longreach.serve.asking import Question, asked
from longreach.serve.bodies.asking import AskRequest
from longreach.serve.page.sessions import Visitor
from longreach.serve.refusals import refusal_for
from longreach.serve.visit import GONE, Visit

ROUTE = "the page's question"
"""What it is called in logs and metrics."""


async def answers(visitor: Visitor, library: str, asked_for: AskRequest) -> AsyncGenerator[Event, None]:
    """The reader's events. Left alone, all is given back. Raises what the route `ask` does."""
    key = await visitor.spend()
    may_read(key, library)
    service, budget = visitor.service, asked_for.budget
    fields: dict[str, Any] = {"key": key.id}
    began, status = time.perf_counter(), 200
    try:
        errand = service.errand(key, budget.timeout)
        service.gate.shared = bool(key.id)
        visit = Visit(service, errand, await service.gate.enter(key.tenant, errand.left), fields)
        try:
            question = Question(
                library, asked_for.question, budget, asked_for.where, asked_for.k, asked_for.retriever, asked_for.answer
            )
            async with contextlib.aclosing(asked(visit, question)) as events:
                async for event in events:
                    yield event
        finally:
            visit.close()
    except (asyncio.CancelledError, GeneratorExit):
        status = GONE
        raise
    except Exception as error:
        status = refusal_for(error).status
        raise
    finally:
        seconds = time.perf_counter() - began
        service.metrics.requests.labels(ROUTE, str(status)).inc()
        service.metrics.seconds.labels(ROUTE).observe(seconds)
        told = {"route": ROUTE, "status": status, "seconds": round(seconds, 4), **fields}
        service.log.info("request", extra={"fields": told})
