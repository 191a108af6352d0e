"""`/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import APIRouter, Request

from longreach.engine import Completion
from longreach.errors import UnsupportedError
from longreach.search.follow import followed
from longreach.serve.access import Caller
from longreach.serve.answering import Answering
from longreach.serve.asking import Question, asked, citations
from longreach.serve.bodies.chat import ChatChoice, ChatChunk, ChatCompletion, ChatRequest, ChunkChoice, Delta, Reply
from longreach.serve.bodies.embeddings import ERRORS, STREAMED
from longreach.serve.preparing import prepared
from longreach.serve.refusals import bad
from longreach.serve.routes.common import Here, Named, library_asked, spent, usage_body
from longreach.serve.tokens import TokenTexts
from longreach.serve.visit import EventStream, Visit, event, visited, with_errors
from longreach.types import Answer

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)
USUAL_TOKENS = 512
"""How long an answer may be where nobody says."""
Reason = Literal["stop", "length"]


@router.post("/chat/completions", response_model=ChatCompletion, response_model_exclude_none=True, responses=STREAMED)
async def chat(body: ChatRequest, service: Here, key: Caller, request: Request) -> Any:
    """The next turn of a conversation, as a whole or as server-sent events; with a library, answered from it."""

    async def work(visit: Visit) -> Any:
        library = library_asked(service, key, body.model, body.library)
        if library is not None:
            return await _from_library(body, visit, library)
        limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        messages = [turn.message for turn in body.messages]
        prompts, most = await prepared(service, [messages], body, limit, USUAL_TOKENS)
        answering = Answering(
            service.engine, service.runs, prompts, body.sampling(most, body.asked_logprobs), visit.errand
        )
        await answering.begin(body.budget.ttft)
        named = Named(body.model)
        if body.stream:
            return EventStream(with_errors(_chunks(answering, body, named, visit), service))
        completions = await answering.finish()
        choices = [_choice(number, one, visit, body) for number, one in enumerate(completions[0].samples)]
        return ChatCompletion(
            id=named.id, created=named.created, model=named.model, choices=choices, usage=spent(visit, completions)
        )

    return await visited(service, request, key, body.budget, work)


def _choice(number: int, one: Completion, visit: Visit, body: ChatRequest) -> ChatChoice:
    texts = TokenTexts(visit.service.engine)
    logprobs = texts.chat(one.logprobs) if body.logprobs else None
    return ChatChoice(index=number, message=Reply(content=one.text), logprobs=logprobs, finish_reason=_reason(one))


async def _chunks(answering: Answering, body: ChatRequest, named: Named, visit: Visit) -> AsyncIterator[bytes]:
    texts = TokenTexts(visit.service.engine)

    def chunk(*choices: ChunkChoice) -> bytes:
        return event(ChatChunk(id=named.id, created=named.created, model=named.model, choices=list(choices)))

    for number in range(body.n or 1):
        yield chunk(ChunkChoice(index=number, delta=Delta(role="assistant", content="")))
    async for _, piece in answering:
        if piece.text or piece.logprobs:
            logprobs = texts.chat(piece.logprobs) if body.logprobs else None
            yield chunk(ChunkChoice(index=piece.sample, delta=Delta(content=piece.text), logprobs=logprobs))
    completions = answering.done()
    for number, one in enumerate(completions[0].samples):
        yield chunk(ChunkChoice(index=number, delta=Delta(), finish_reason=_reason(one)))
    usage = spent(visit, completions)
    if body.usage_wanted:
        yield event(ChatChunk(id=named.id, created=named.created, model=named.model, choices=[], usage=usage))
    yield event("[DONE]")


async def _from_library(body: ChatRequest, visit: Visit, library: str) -> Any:
    """The answer to the last message, searched for with what it leans on. It is sent when it was checked, in one piece:
    what passages do not support is not said and taken back."""
    if body.messages[-1].role != "user":
        raise bad("the last message must be the user's: it is what the library is asked", "messages")
    if (body.n or 1) > 1 or body.logprobs:
        raise UnsupportedError("an answer from a library is one, and has no log-probabilities")
    last = body.messages[-1].text
    query = followed(last, body.before)
    searched = None if query == last else query
    question = Question(library, last, body.budget, query=searched)
    answer: Answer | None = None
    async for told in asked(visit, question):
        if isinstance(told, Answer):
            answer = told
    assert answer is not None, "a reader ends with its answer"
    named, usage = Named(body.model), usage_body(answer.usage)
    cited = citations(answer)
    if not body.stream:
        reply = Reply(content=answer.text, citations=cited, searched=searched)
        choice = ChatChoice(index=0, message=reply, finish_reason="stop")
        return ChatCompletion(id=named.id, created=named.created, model=named.model, choices=[choice], usage=usage)

    async def chunks() -> AsyncIterator[bytes]:
        delta = Delta(role="assistant", content=answer.text, citations=cited, searched=searched)
        for choice in (ChunkChoice(index=0, delta=delta), ChunkChoice(index=0, delta=Delta(), finish_reason="stop")):
            yield event(ChatChunk(id=named.id, created=named.created, model=named.model, choices=[choice]))
        if body.usage_wanted:
            yield event(ChatChunk(id=named.id, created=named.created, model=named.model, choices=[], usage=usage))
        yield event("[DONE]")

    return EventStream(chunks())


def _reason(one: Completion) -> Reason:
    return "length" if one.finish_reason == "length" else "stop"
