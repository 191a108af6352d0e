"""Questions to a library, answered by the reader in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longreach.errors import EndedError
from longreach.reader import Event, Found
from longreach.serve.bodies import asking as bodies
from longreach.serve.bodies.common import Budget
from longreach.serve.preparing import passage_tokens
from longreach.serve.visit import Visit, in_thread
from longreach.types import Answer, Hit


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of which library, and what to search for where that is more (`query`); None is as the server's
    settings have it."""

    library: str
    text: str
    budget: Budget
    where: Mapping[str, Any] | None = None
    k: int | None = None
    retriever: str | None = None
    answer: str | None = None
    query: str | None = None


async def asked(visit: Visit, question: Question) -> AsyncGenerator[Event, None]:
    """The reader's events. Raises EndedError where the budget's time to the first token is over."""
    service, errand = visit.service, visit.errand
    library = await service.search_in(lambda: service.shelf.get(question.library))

    def read() -> Iterator[Event]:
        chosen = {"k": question.k, "retriever": question.retriever, "answer": question.answer}
        reader = service.reader(library, errand, **chosen)
        overhead = reader.answerer.overhead(question.text, reader.engine)
        spent = time.perf_counter() - errand.began
        tokens = passage_tokens(service, question.budget, overhead, spent)
        if tokens is not None:
            reader.prompt_tokens = min(reader.prompt_tokens, tokens)
        return reader.stream(question.text, where=question.where, query=question.query)

    events = in_thread(service, lambda: _closed_after(read()))
    first = False
    async with contextlib.aclosing(events):
        while True:
            wait = question.budget.ttft
            until = None if first or wait is None else max(0.0, errand.began + wait - time.perf_counter())
            try:
                async with asyncio.timeout(until):
                    told = await anext(events, None)
            except TimeoutError:
                errand.cancel()
                raise EndedError(f"no token came within the budget: ttft_ms={question.budget.ttft_ms}") from None
            if told is None:
                return
            first = first or not isinstance(told, Found)
            if isinstance(told, Answer):
                service.learn(told.timing, told.usage, began=told.timing.search)
                service.metrics.tokens.labels("generated").inc(told.usage.generated_tokens)
                visit.note(told.usage)
            yield told


def _closed_after(events: Iterator[Event]) -> Iterator[Event]:
    """`events`, generators closed in the thread that ran them."""
    try:
        yield from events
    finally:
        if hasattr(events, "close"):
            events.close()


def passages(hits: Sequence[Hit]) -> list[bodies.Passage]:
    """Hits as they are told."""
    return [
        bodies.Passage(
            document=hit.chunk.document_id,
            start=hit.chunk.start,
            end=hit.chunk.end,
            text=_sound(hit.text),
            score=hit.score,
            scores=dict(hit.scores),
            section=list(hit.chunk.section),
            page=hit.chunk.page,
        )
        for hit in hits
    ]


def citations(answer: Answer) -> list[bodies.Citation]:
    """Citations as they are told."""
    return [
        bodies.Citation(
            document=one.document,
            start=one.start,
            end=one.end,
            quote=_sound(one.quote),
            page=one.page,
            line=one.place.line,
            section=list(one.place.section),
        )
        for one in answer.citations
    ]


def answer_body(answer: Answer) -> bodies.AnswerBody:
    """An answer as it is told."""
    timing, usage = answer.timing, answer.usage
    return bodies.AnswerBody(
        question=answer.question,
        answer=_sound(answer.text),
        found=answer.found,
        citations=citations(answer),
        passages=passages([passage.hit for passage in answer.passages]),
        timing=bodies.Timings(search_s=timing.search, ttft_s=timing.ttft, total_s=timing.total),
        usage=bodies.Cost(
            prompt_tokens=usage.prompt_tokens,
            reused_tokens=usage.reused_tokens,
            recomputed_tokens=usage.recomputed_tokens,
            generated_tokens=usage.generated_tokens,
            kv_bytes=usage.kv_bytes,
        ),
        model=answer.model,
    )


def _sound(text: str) -> str:
    """`text` as UTF-8 can carry it; as long as it was."""
    return text.encode("utf-8", "replace").decode("utf-8")
