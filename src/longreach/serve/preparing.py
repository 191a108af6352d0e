"""What a request asks of the engine, checked against its budget before it begins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from longreach.engine import Prompt
from longreach.serve.bodies.common import Budget, Generation
from longreach.serve.refusals import Refusal, bad
from longreach.serve.service import Service


async def prepared(
    service: Service, prompts: Sequence[Prompt], asked: Generation, max_tokens: int | None, usual: int
) -> tuple[list[Prompt], int]:
    """The prompts as token ids, where the engine is here, and how many tokens each answer may have: `max_tokens`, or as
    `usual`. Raises Refusal where the budget does not suffice."""
    limit = usual if max_tokens is None else max_tokens
    if limit > service.options.most_tokens:
        raise bad(f"max_tokens={limit} is more than this server gives: {service.options.most_tokens}", "max_tokens")
    if len(prompts) > service.options.prompts:
        raise bad(
            f"{len(prompts)} prompts are more than this server takes at once: {service.options.prompts}", "prompt"
        )
    engine: Any = service.engine
    if not hasattr(engine, "parts"):
        _measured_here(asked.budget)
        return list(prompts), limit
    # Here and not in the engine's thread: a long text is not turned into tokens while others wait for theirs.
    read = [await asyncio.to_thread(engine.parts, prompt) for prompt in prompts]
    samples = asked.n or 1
    room = kv_room(service, asked.budget)
    for parts in read:
        length = sum(len(part.token_ids) for part in parts)
        if asked.budget.max_prompt_tokens is not None and length > asked.budget.max_prompt_tokens:
            raise Refusal(
                400,
                f"the prompt has {length} tokens, and the budget allows {asked.budget.max_prompt_tokens}",
                code="over_budget",
                param="budget.max_prompt_tokens",
            )
        if room is not None:
            left = (room - length) // samples
            if left < 1:
                raise _too_small(length + samples, room)
            limit = min(limit, left)
    return read, limit


def kv_room(service: Service, budget: Budget) -> int | None:
    """How many tokens `max_kv_bytes` hold; None without such a budget. Raises Refusal where that cannot be known."""
    if budget.max_kv_bytes is None:
        return None
    engine: Any = service.engine
    if not hasattr(engine, "kv_bytes_of"):
        _measured_here(budget)
    return int(budget.max_kv_bytes // engine.kv_bytes_of(1) * engine.pool.page_size)


def passage_tokens(service: Service, budget: Budget, overhead: int, spent: float) -> int | None:
    """How long the prompt of a question may be, `overhead` tokens of it not being passages, where `spent` seconds of
    the budget are gone already; None where the budget does not say. Time is turned into tokens as if what is not
    passages was read before, as it mostly was. Raises Refusal."""
    room = kv_room(service, budget)
    if room is not None and room <= overhead:
        raise _too_small(overhead + 1, room)
    bounds = [bound for bound in (budget.max_prompt_tokens, room) if bound is not None]
    if budget.ttft is not None:
        in_time = service.pace.tokens_in(max(0.0, 0.8 * budget.ttft - spent))
        bounds += [] if in_time is None else [overhead + max(32, in_time)]
    return min(bounds, default=None)


def _measured_here(budget: Budget) -> None:
    if budget.max_kv_bytes is not None or budget.max_prompt_tokens is not None:
        raise bad("the model runs behind another server: its memory and tokens cannot be measured here", "budget")


def _too_small(tokens: int, room: int) -> Refusal:
    message = f"keys and values of {tokens} tokens are needed, and the budget holds {room}"
    return Refusal(400, message, code="over_budget", param="budget.max_kv_bytes")
