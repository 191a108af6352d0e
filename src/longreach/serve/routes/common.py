"""What routes have in common."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from longreach.engine import Completion
from longreach.serve.access import may_read
from longreach.serve.bodies.common import Usage
from longreach.serve.keys import Key
from longreach.serve.refusals import Refusal
from longreach.serve.service import Service
from longreach.serve.visit import Visit
from longreach.types import Usage as Spent

AT = "@"
"""Stands between the name of a model and that of the library that it answers from."""


def service_of(request: Request) -> Service:
    """The server, as a dependency."""
    service: Service = request.app.state.service
    return service


Here: TypeAlias = Annotated[Service, Depends(service_of)]


@dataclass(frozen=True, slots=True)
class Named:
    """What an answer begins with: a new id, when it was made, and by what."""

    model: str
    id: str = field(default_factory=lambda: f"lr-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))


def library_asked(service: Service, key: Key, model: str, library: str | None) -> str | None:
    """The library that shall answer, if one shall. Raises Refusal, 404, for a model or a library that is not there."""
    name, at, named = model.rpartition(AT)
    if at and model != service.engine.model:
        model, library = name, library or named
    if model != service.engine.model:
        raise Refusal(
            404,
            f"there is no model {model!r}: this server has {service.engine.model!r}",
            code="model_not_found",
            param="model",
        )
    if library is not None:
        may_read(key, library)
        service.shelf.get(library)
    return library


def spent(visit: Visit, completions: Sequence[Completion]) -> Usage:
    """What the answers to all prompts cost together; the server's figures and log know of it from now on."""
    prompt = reused = generated = kv_bytes = 0
    for completion in completions:
        told = completion.usage
        written = sum(sample.usage.generated_tokens for sample in completion.samples)
        visit.service.learn(completion.timing, told)
        for sample in completion.samples:
            visit.service.metrics.wrote(sample.timing, sample.usage)
        visit.note(Spent(told.prompt_tokens, told.reused_tokens, 0, written))
        prompt, reused, generated = prompt + told.prompt_tokens, reused + told.reused_tokens, generated + written
        kv_bytes += sum(sample.usage.kv_bytes for sample in completion.samples)
    return usage_body(Spent(prompt, reused, 0, generated, kv_bytes))


def usage_body(told: Spent) -> Usage:
    """Usage in OpenAI's shape."""
    return Usage(
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.generated_tokens,
        total_tokens=told.prompt_tokens + told.generated_tokens,
        prompt_tokens_details={"cached_tokens": told.reused_tokens},
        kv_bytes=told.kv_bytes,
    )
