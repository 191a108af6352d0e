"""Chat completions."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from longreach.engine import Message
from longreach.engine.requests import Role
from longreach.search.follow import Asked
from longreach.serve.bodies.asking import Citation
from longreach.serve.bodies.common import Body, Generation, Usage
from longreach.serve.refusals import bad


class TextPart(Body):
    type: Literal["text"]
    text: str


class Turn(Body):
    """A message of a conversation; "developer" is another word for "system"."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    @property
    def message(self) -> Message:
        role: Role = "system" if self.role == "developer" else self.role
        return Message(role, self.text)


class Format(Body):
    type: Literal["text"] = "text"


class ChatRequest(Generation):
    """`library` answers the last message from that library: the text is then what its passages support, and the message
    has `citations`; where the last message leans on what was said before, it also has `searched`, what was searched
    for. A client that cannot say so asks for the model "NAME@LIBRARY"."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "embedded", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16},
                {"model": "embedded@manuals", "messages": [{"role": "user", "content": "What is the torque limit?"}]},
            ]
        },
    )

    messages: list[Turn] = Field(min_length=1, max_length=1000)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    library: str | None = Field(default=None, max_length=64)
    response_format: Format | None = None
    tools: list[Any] | None = Field(default=None, max_length=0)
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    parallel_tool_calls: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def before(self) -> list[Asked]:
        """What was asked before the last message, each with what was answered."""
        found: list[Asked] = []
        for turn in self.messages[:-1]:
            if turn.role == "user":
                found.append(Asked(turn.text))
            elif turn.role == "assistant" and found:
                found[-1] = Asked(found[-1].question, turn.text)
        return found

    @property
    def asked_logprobs(self) -> int | None:
        """As the engine takes it. Raises Refusal."""
        if not self.logprobs:
            if self.top_logprobs:
                raise bad("top_logprobs needs logprobs", "top_logprobs")
            return None
        return self.top_logprobs or 0


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob] = Field(default_factory=list)


class Logprobs(BaseModel):
    content: list[TokenLogprob]


class Reply(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    citations: list[Citation] | None = None
    searched: str | None = None


class ChatChoice(BaseModel):
    index: int
    message: Reply
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None
    citations: list[Citation] | None = None
    searched: str | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
