"""Search, ask, rerank."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from longreach.serve.bodies.common import Body, Budget

Retriever: TypeAlias = Literal["hybrid", "dense", "bm25"]
"""Names alone: options of methods are the server's to set, since some of them name files and programs."""
Answerer: TypeAlias = Literal["auto", "rank_spans", "extract", "generate"]
Filter: TypeAlias = dict[str, Any]


class SearchRequest(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "torque limit", "k": 5, "where": {"year": 2025}}]}
    )

    query: str = Field(min_length=1, max_length=20_000)
    k: int = Field(default=10, ge=1, le=200)
    retriever: Retriever | None = None
    where: Filter | None = Field(default=None, max_length=32)


class AskRequest(Body):
    """With `stream`, the answer is server-sent events: `passages`, `token` (as the model writes, not checked yet),
    `answer` (checked, with citations and timings), or `error`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"question": "What is the torque limit?", "budget": {"ttft_ms": 2000}}]},
    )

    question: str = Field(min_length=1, max_length=20_000)
    stream: bool = False
    where: Filter | None = Field(default=None, max_length=32)
    k: int | None = Field(default=None, ge=1, le=200)
    retriever: Retriever | None = None
    answer: Answerer | None = None
    budget: Budget = Budget()


class RerankRequest(Body):
    """Orders `documents` by how well they answer `query`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "torque", "documents": ["The torque is 25 Nm.", "A lake."]}]},
    )

    query: str = Field(min_length=1, max_length=20_000)
    documents: list[str] = Field(min_length=1, max_length=512)
    top_n: int | None = Field(default=None, ge=1)
    model: str | None = Field(default=None, max_length=1000)
    return_documents: bool = False


class Passage(BaseModel):
    """A chunk: `[start, end)` are characters of the document."""

    document: str
    start: int
    end: int
    text: str
    score: float
    scores: dict[str, float]
    section: list[str]
    page: int | None


class Hits(BaseModel):
    query: str
    hits: list[Passage]
    seconds: float


class Citation(BaseModel):
    """`quote` is the document's text from `start` to `end`."""

    document: str
    start: int
    end: int
    quote: str
    page: int | None
    line: int
    section: list[str]


class Timings(BaseModel):
    search_s: float
    ttft_s: float
    total_s: float


class Cost(BaseModel):
    prompt_tokens: int
    reused_tokens: int
    recomputed_tokens: int
    generated_tokens: int
    kv_bytes: int


class AnswerBody(BaseModel):
    """`found` is false where the documents do not tell."""

    question: str
    answer: str
    found: bool
    citations: list[Citation]
    passages: list[Passage]
    timing: Timings
    usage: Cost
    model: str


class Ranked(BaseModel):
    index: int
    relevance_score: float
    document: str | None = None


class Rerank(BaseModel):
    model: str
    results: list[Ranked]
