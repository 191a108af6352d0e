"""Embeddings, and the list of models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longreach.serve.bodies.common import Body

Text = Annotated[str, Field(min_length=1)]


class EmbeddingsRequest(Body):
    """`input` is one text or several; token ids are not taken, since encoders have tokens of their own."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "embedded", "input": ["a text", "another"]}]})

    model: str = Field(max_length=1000)
    input: Text | Annotated[list[Text], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingsUsage


class Model(BaseModel):
    """`kind`: "chat" or "embedding"; `library`: what it answers from."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "longreach"
    kind: Literal["chat", "embedding"]
    library: str | None = None
    max_model_len: int | None = None
    context_length: int | None = None


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Problem(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """What every error looks like."""

    error: Problem


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": says}
    for status, says in {
        400: "The request is at fault.",
        401: "There is no good API key.",
        403: "The key may not do that.",
        404: "There is no such thing, or not for this key.",
        408: "The request took too long to come.",
        409: "It is there already.",
        413: "The request is too large.",
        422: "A document cannot be read.",
        429: "Too many requests: Retry-After says when to come back.",
        500: "Something went wrong here.",
        502: "The server behind this one does not answer.",
        503: "The server is starting or ending: Retry-After says when to come back.",
        504: "The request's time was over.",
        507: "The server's disk is full.",
    }.items()
}
"""For the OpenAPI document."""
EVENT = {"type": "object", "required": ["data"], "properties": {name: {"type": "string"} for name in ("event", "data")}}
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer, or server-sent events.",
        "content": {"text/event-stream": {"schema": EVENT}},
    }
}
"""Of routes that may stream, for the same."""
