"""Sampling as servers that speak OpenAI's protocol want it, and log-probabilities as they tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from longreach.engine.requests import Logprob, Sampling, TokenLogprobs

_BEYOND: Mapping[str, tuple[str, ...]] = {
    "top_k": ("top_k",),
    "min_p": ("min_p",),
    "typical_p": ("typical_p",),
    "repetition_penalty": ("repetition_penalty", "repeat_penalty"),
    "stop_token_ids": ("stop_token_ids",),
    "ignore_eos": ("ignore_eos",),
    "min_tokens": ("min_tokens",),
}
"""What OpenAI's protocol does not have, by the names that vLLM, SGLang and llama.cpp take it under."""


def server_options(sampling: Sampling, *, chat: bool) -> dict[str, Any]:
    """The options of a request for messages, or for a text where not `chat`.

    What stands at its default is left out where OpenAI's protocol does not have it, so that a server that refuses what
    it does not know still answers; such an option then has the server's own default.
    """
    options: dict[str, Any] = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    changed = _changed(sampling)
    options |= {
        name: changed[name] for name in ("seed", "presence_penalty", "frequency_penalty", "n") if name in changed
    }
    if sampling.stop:
        options["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        options["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.logprobs is not None:
        options |= {"logprobs": True, "top_logprobs": sampling.logprobs} if chat else {"logprobs": sampling.logprobs}
    beyond = {theirs: changed[ours] for ours, names in _BEYOND.items() if ours in changed for theirs in names}
    if beyond:
        options["extra_body"] = beyond
    return options


def read_logprobs(choice: Any) -> tuple[TokenLogprobs, ...]:
    """Of the tokens of one event of a stream; empty where the server does not tell."""
    told = getattr(choice, "logprobs", None)
    if told is None:
        return ()
    if getattr(told, "content", None):  # an answer to messages
        return tuple(
            TokenLogprobs(
                Logprob(entry.logprob, text=entry.token),
                tuple(Logprob(other.logprob, text=other.token) for other in entry.top_logprobs or ()),
            )
            for entry in told.content
        )
    tokens, values = getattr(told, "tokens", None) or (), getattr(told, "token_logprobs", None) or ()
    tops = getattr(told, "top_logprobs", None) or [None] * len(tokens)
    return tuple(
        TokenLogprobs(Logprob(value, text=token), _falling(top or {}))
        for token, value, top in zip(tokens, values, tops, strict=False)
        if value is not None
    )


def _falling(top: Mapping[str, float]) -> tuple[Logprob, ...]:
    return tuple(Logprob(value, text=token) for token, value in sorted(top.items(), key=lambda entry: -entry[1]))


def _changed(sampling: Sampling) -> dict[str, Any]:
    """The options that are not at their defaults, sequences as lists."""
    plain = Sampling()
    given = {option.name: getattr(sampling, option.name) for option in fields(sampling)}
    return {
        name: list(value) if name == "stop_token_ids" else value
        for name, value in given.items()
        if value != getattr(plain, name)
    }
