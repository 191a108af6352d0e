"""`/v1/models` and `/v1/embeddings`."""

from __future__ import annotations

import base64
import time
from typing import Any

from fastapi import APIRouter, Request

from longreach.serve.access import Caller
from longreach.serve.bodies.common import Budget
from longreach.serve.bodies.embeddings import (
    ERRORS,
    Embedding,
    Embeddings,
    EmbeddingsRequest,
    EmbeddingsUsage,
    Model,
    Models,
)
from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal, bad, not_found
from longreach.serve.routes.common import AT, Here
from longreach.serve.service import Service
from longreach.serve.visit import Visit, visited

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=ERRORS)
EMBEDDING = "-encoder"
"""What the encoder's name ends with where the model has the same one."""


@router.get("/models", response_model_exclude_none=True)
async def models(service: Here, key: Caller) -> Models:
    """The model, the model with each library that the key may ask, and the encoder."""
    return Models(data=_models(service, key))


@router.get("/models/{model:path}", response_model_exclude_none=True)
async def model(model: str, service: Here, key: Caller) -> Model:
    """One of these."""
    found = next((one for one in _models(service, key) if one.id == model), None)
    if found is None:
        raise not_found(f"model {model!r}")
    return found


@router.post("/embeddings")
async def embeddings(body: EmbeddingsRequest, service: Here, key: Caller, request: Request) -> Embeddings:
    """A vector of unit norm for each text."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    if len(texts) > service.options.embeddings:
        raise bad(f"{len(texts)} texts are more than this server takes at once: {service.options.embeddings}", "input")
    name = service.settings.encoder
    if body.model not in (name, _encoder_name(service)):
        raise Refusal(404, f"there is no encoder {body.model!r}: this server has {name!r}", code="model_not_found")

    async def work(_: Visit) -> Embeddings:
        def embed() -> tuple[Any, int]:
            return service.encoder.embed_documents(texts), sum(map(service.engine.count, texts))

        vectors, tokens = await service.search_in(embed)
        if body.dimensions not in (None, vectors.shape[1]):
            raise bad(f"vectors of this encoder have {vectors.shape[1]} dimensions", "dimensions")
        packed = body.encoding_format == "base64"
        data = [
            Embedding(
                index=at, embedding=base64.b64encode(row.astype("<f4").tobytes()).decode() if packed else row.tolist()
            )
            for at, row in enumerate(vectors)
        ]
        return Embeddings(model=body.model, data=data, usage=EmbeddingsUsage(prompt_tokens=tokens, total_tokens=tokens))

    return await visited(service, request, key, Budget(), work)


def _models(service: Service, key: Key) -> list[Model]:
    if service.gate.closed is not None:
        raise service.gate.closed.again()
    engine, now = service.engine, int(time.time())
    about: dict[str, Any] = {
        "created": now,
        "max_model_len": engine.context_length,
        "context_length": engine.context_length,
    }
    libraries = [name for name in service.shelf.names() if key.may_read(name)]
    found = [Model(id=engine.model, kind="chat", **about)]
    found += [Model(id=f"{engine.model}{AT}{name}", kind="chat", library=name, **about) for name in libraries]
    return [*found, Model(id=_encoder_name(service), kind="embedding", created=now)]


def _encoder_name(service: Service) -> str:
    """The encoder's name where it is listed beside the model."""
    name = service.settings.encoder
    return f"{name}{EMBEDDING}" if name == service.settings.model else name
