"""`/v1/completions`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request

from longreach.engine import Completion
from longreach.errors import UnsupportedError
from longreach.serve.access import Caller
from longreach.serve.answering import Answering
from longreach.serve.bodies.completions import CompletionRequest, TextChoice, TextCompletion
from longreach.serve.bodies.embeddings import ERRORS, STREAMED
from longreach.serve.preparing import prepared
from longreach.serve.refusals import bad
from longreach.serve.routes.common import Here, Named, library_asked, spent
from longreach.serve.tokens import TokenTexts
from longreach.serve.visit import EventStream, Visit, event, visited, with_errors

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)
USUAL_TOKENS = 16
"""As the protocol has it."""


@router.post("/completions", response_model=TextCompletion, response_model_exclude_none=True, responses=STREAMED)
async def complete(body: CompletionRequest, service: Here, key: Caller, request: Request) -> Any:
    """How a text goes on, or each of several."""

    async def work(visit: Visit) -> Any:
        if library_asked(service, key, body.model, None) is not None:
            raise UnsupportedError("a library answers questions: ask it with /v1/chat/completions")
        if body.best_of is not None and body.best_of != (body.n or 1):
            raise bad("best_of is not known here: it must be n", "best_of")
        prompts, most = await prepared(service, body.prompts, body, body.max_tokens, USUAL_TOKENS)
        if not prompts:
            raise bad("the prompt is empty", "prompt")
        answering = Answering(service.engine, service.runs, prompts, body.sampling(most, body.logprobs), visit.errand)
        await answering.begin(body.budget.ttft)
        named = Named(body.model)
        if body.stream:
            return EventStream(with_errors(_chunks(answering, body, named, visit), service))
        completions = await answering.finish()
        texts = TokenTexts(service.engine)
        choices: list[TextChoice] = []
        for one in (sample for completion in completions for sample in completion.samples):
            logprobs = texts.text(one.logprobs) if body.logprobs is not None else None
            choice = TextChoice(index=len(choices), text=one.text, logprobs=logprobs, finish_reason=_reason(one))
            choices.append(choice)
        return TextCompletion(
            id=named.id, created=named.created, model=named.model, choices=choices, usage=spent(visit, completions)
        )

    return await visited(service, request, key, body.budget, work)


async def _chunks(answering: Answering, body: CompletionRequest, named: Named, visit: Visit) -> AsyncIterator[bytes]:
    texts, samples = TokenTexts(visit.service.engine), body.n or 1
    lengths = [0] * (samples * len(body.prompts))

    def chunk(**told: Any) -> bytes:
        return event(TextCompletion(id=named.id, created=named.created, model=named.model, **told))

    async for prompt, piece in answering:
        if piece.text or piece.logprobs:
            number = prompt * samples + piece.sample
            logprobs = texts.text(piece.logprobs, lengths[number]) if body.logprobs is not None else None
            lengths[number] += len(piece.text)
            yield chunk(choices=[TextChoice(index=number, text=piece.text, logprobs=logprobs)])
    completions = answering.done()
    ended = [sample for completion in completions for sample in completion.samples]
    for number, one in enumerate(ended):
        yield chunk(choices=[TextChoice(index=number, text="", finish_reason=_reason(one))])
    usage = spent(visit, completions)
    if body.usage_wanted:
        yield chunk(choices=[], usage=usage)
    yield event("[DONE]")


def _reason(one: Completion) -> Any:
    return "length" if one.finish_reason == "length" else "stop"
