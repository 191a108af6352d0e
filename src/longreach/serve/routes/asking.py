"""`search` and `ask` in a library, and `/v1/rerank`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request

from longreach.context.relevance import relevance
from longreach.reader import Found
from longreach.search import search as search_library
from longreach.search.rerank import rerankers
from longreach.serve.access import Caller, may_read
from longreach.serve.asking import Question, answer_body, asked, passages
from longreach.serve.bodies.asking import (
    AnswerBody,
    AskRequest,
    Hits,
    Ranked,
    Rerank,
    RerankRequest,
    SearchRequest,
)
from longreach.serve.bodies.common import Budget
from longreach.serve.bodies.embeddings import ERRORS, STREAMED
from longreach.serve.routes.common import Here
from longreach.serve.visit import EventStream, Visit, event, visited, with_errors
from longreach.types import Answer, Chunk, DocumentInfo, Hit

router = APIRouter(prefix="/v1", tags=["Asking"], responses=ERRORS)


@router.post("/libraries/{library}/search")
async def search(library: str, body: SearchRequest, service: Here, key: Caller, request: Request) -> Hits:
    """The passages that match best."""
    may_read(key, library)

    async def work(_: Visit) -> Hits:
        began = time.perf_counter()
        settings = service.settings

        def find() -> list[Hit]:
            retriever = body.retriever or settings.retriever
            opened = service.shelf.get(library)
            return search_library(
                opened, body.query, body.k, retriever=retriever, reranker=settings.reranker, where=body.where
            )

        hits = await service.search_in(find)
        return Hits(query=body.query, hits=passages(hits), seconds=time.perf_counter() - began)

    return await visited(service, request, key, Budget(), work)


@router.post("/libraries/{library}/ask", response_model=AnswerBody, responses=STREAMED)
async def ask(library: str, body: AskRequest, service: Here, key: Caller, request: Request) -> Any:
    """An answer from a library with its citations, as a whole or as server-sent events."""
    may_read(key, library)
    question = Question(library, body.question, body.budget, body.where, body.k, body.retriever, body.answer)

    async def work(visit: Visit) -> Any:
        if body.stream:
            service.shelf.get(library)
            return EventStream(with_errors(_events(visit, question), service, "error"))
        answer = [told async for told in asked(visit, question)][-1]
        assert isinstance(answer, Answer)
        return answer_body(answer)

    return await visited(service, request, key, body.budget, work)


async def _events(visit: Visit, question: Question) -> AsyncIterator[bytes]:
    async for told in asked(visit, question):
        if isinstance(told, Found):
            found = [one.model_dump() for one in passages([passage.hit for passage in told.passages])]
            yield event(json.dumps({"passages": found, "search_s": told.seconds}), "passages")
        elif isinstance(told, Answer):
            yield event(answer_body(told), "answer")
        elif told:
            yield event(json.dumps({"text": told}), "token")


@router.post("/rerank", response_model_exclude_none=True)
async def rerank(body: RerankRequest, service: Here, key: Caller, request: Request) -> Rerank:
    """Texts, those that answer the query best first: by the reranker of the settings, or, where there is none, by their
    relevance (vectors and words)."""

    async def work(_: Visit) -> Rerank:
        spec = service.settings.reranker

        def rank() -> list[tuple[int, float]]:
            vectors = service.encoder.embed_documents(body.documents)
            cosines = (vectors @ service.encoder.embed_queries([body.query])[0]).tolist()
            hits = [
                _hit(at, text, cosine) for at, (text, cosine) in enumerate(zip(body.documents, cosines, strict=True))
            ]
            if spec == "none":
                return list(enumerate(relevance(body.query, hits)))
            return [(int(hit.chunk.id), hit.score) for hit in rerankers.make(spec).rerank(body.query, hits)]

        ranked = sorted(await service.search_in(rank), key=lambda one: -one[1])[: body.top_n]
        results = [
            Ranked(index=at, relevance_score=score, document=body.documents[at] if body.return_documents else None)
            for at, score in ranked
        ]
        return Rerank(model=spec if spec != "none" else f"relevance by {service.settings.encoder}", results=results)

    return await visited(service, request, key, Budget(), work)


def _hit(at: int, text: str, cosine: float) -> Hit:
    """A text as a reranker takes it."""
    chunk = Chunk(str(at), str(at), 0, len(text), text, 0)
    return Hit(chunk, DocumentInfo(str(at), "", {}, "text/plain", len(text), 1, ""), cosine, {"dense": cosine})
