"""What goes into an engine and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from longreach.errors import InputError
from longreach.types import Timing, Usage

Role: TypeAlias = Literal["system", "user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


Prompt: TypeAlias = str | Sequence[Message] | Sequence[int]
"""Text to go on from, as it stands; a conversation, put into the model's chat template; or token ids."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; `top_p` keeps the likeliest tokens of that mass together.

    The answer ends before the first of the `stop` strings. Raises InputError for values out of range.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens} is too small: ask for at least 1")
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise InputError(f"temperature={self.temperature} is out of range: 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} is out of range: more than 0, at most 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"seed={self.seed} is out of range: 0 to 2**63 - 1")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"stop={self.stop!r} must be a list of texts, none of them empty")


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step of decoding adds to the text: empty while a character or a stop string may still be under way.

    `token_id` is None where a server does not tell it.
    """

    text: str
    token_id: int | None


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer. `token_ids` holds all that was decoded, the end token included; `text` is what they spell
    without special tokens and before the stop string. `token_ids` is empty where a server does not tell them."""

    text: str
    token_ids: Sequence[int]
    finish_reason: FinishReason
    timing: Timing
    usage: Usage


ROOT = -1
"""In an exploration, the parent of nodes that follow the prompt itself."""


def check_prompt(prompt: Prompt) -> None:
    """Raises InputError unless `prompt` is a text, messages or token ids, and not empty."""
    shapes = "a prompt is a text, a list of messages or a list of token ids"
    if not isinstance(prompt, Sequence):
        raise InputError(f"{shapes}, not {type(prompt).__name__}")
    if not prompt:
        raise InputError("the prompt is empty")
    if isinstance(prompt, str):
        return
    if not (all(isinstance(part, Message) for part in prompt) or all(type(part) is int for part in prompt)):
        raise InputError(f"{shapes}, nothing mixed")


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raises InputError where a single prompt was given in place of a list of them."""
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], Message | int)):
        raise InputError("generate takes a list of prompts: put the prompt into brackets")
    for prompt in prompts:
        check_prompt(prompt)
