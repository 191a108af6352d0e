"""What goes into an engine and what comes out of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import UnionType
from typing import Literal, TypeAlias

from longreach.engine.ranges import check, real, switch, whole
from longreach.errors import InputError
from longreach.types import Timing, Usage

Role: TypeAlias = Literal["system", "user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `passages` are texts that stand in it, in this order: an engine that keeps what it
    has read may read them apart."""

    role: Role
    content: str
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt, by its token ids. A `passage` is the same wherever it stands: an engine that keeps what it
    has read may read it apart, behind what opens the prompt."""

    token_ids: tuple[int, ...]
    passage: bool = False


Prompt: TypeAlias = str | Sequence[Message] | Sequence[int] | Sequence[Part]
"""Text to go on from, as it stands; a conversation, put into the model's chat template; token ids; or parts of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen, and when an answer ends. As it stands: greedy, nothing changed, nothing cut.

    In the order in which they act on the logits [vocab] of the next token:

    - `logit_bias`: token id to a number, -100 to 100, that is added to its logit.
    - `repetition_penalty` (Keskar et al. 2019, arXiv 1909.05858): divides the positive and multiplies the negative
      logits of tokens that stand in the prompt or the output; 1 is off.
    - `frequency_penalty`, `presence_penalty` (OpenAI's): taken off a logit for every time the token stands in the
      output, and once if it does; 0 is off.
    - `min_tokens`: that many tokens come before the answer may end.
    - `temperature`: divides all logits; below 0.00001 the likeliest token is taken, and what follows does not matter.
    - `top_k`: keeps the k likeliest tokens; 0 is off.
    - `top_p` (Holtzman et al. 2020, arXiv 1904.09751): keeps the likeliest that together have this mass; 1 is off.
    - `min_p` (Nguyen et al. 2024, arXiv 2407.01082): keeps those at least this times as likely as the likeliest; 0 is
      off.
    - `typical_p` (Meister et al. 2022, arXiv 2202.00666): keeps those whose surprise is nearest to the expected one and
      that together have this mass; 1 is off.

    The answer ends after `max_tokens`, before the first of the `stop` strings, or with one of `stop_token_ids` or the
    model's own end tokens; `ignore_eos` lets the latter pass. The same `seed` draws the same text, whatever else the
    engine does meanwhile. `n` answers are drawn for one prompt. `logprobs`, 0 to 20, asks for the log-probability of
    each token and of that many of the likeliest, by the model itself: before anything above. Raises InputError for
    values out of range.
    """

    max_tokens: int = whole(128, least=1)
    temperature: float = real(0.0, least=0)
    top_p: float = real(1.0, above=0, most=1)
    seed: int | None = whole(None, least=0, most=2**63 - 1)
    stop: Sequence[str] = ()
    top_k: int = whole(0, least=0)
    min_p: float = real(0.0, least=0, most=1)
    typical_p: float = real(1.0, above=0, most=1)
    repetition_penalty: float = real(1.0, above=0)
    presence_penalty: float = real(0.0, least=-2, most=2)
    frequency_penalty: float = real(0.0, least=-2, most=2)
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = switch(False)
    min_tokens: int = whole(0, least=0)
    n: int = whole(1, least=1)
    logprobs: int | None = whole(None, least=0, most=20)

    def __post_init__(self) -> None:
        check(self)
        if not _all(self.stop, str) or not all(self.stop):
            raise InputError(f"stop={self.stop!r} must be a list of texts, none of them empty")
        if not _all(self.stop_token_ids, int) or any(token < 0 for token in self.stop_token_ids):
            raise InputError(f"stop_token_ids={self.stop_token_ids!r} must be a list of token ids, 0 or more")
        if self.min_tokens > self.max_tokens:
            raise InputError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        tokens = self.logit_bias
        if not (isinstance(tokens, Mapping) and _all(tokens, int)) or any(token < 0 for token in tokens):
            raise InputError(f"logit_bias={self.logit_bias!r} must be a table from token ids, 0 or more, to numbers")
        for token, bias in self.logit_bias.items():
            if not (_all([bias], int | float) and -100 <= bias <= 100):
                raise InputError(f"logit_bias={{{token}: {bias!r}}} is out of range: -100 to 100")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken and nothing is drawn."""
        return self.temperature < 1e-5

    def ends(self, end_tokens: frozenset[int]) -> frozenset[int]:
        """The tokens that end an answer of a model whose own are `end_tokens`."""
        own = frozenset() if self.ignore_eos else end_tokens
        return own | frozenset(self.stop_token_ids)

    def check_vocabulary(self, size: int) -> None:
        """Raises InputError where a token is named that a vocabulary of `size` does not have."""
        for name, tokens in (("logit_bias", self.logit_bias), ("stop_token_ids", self.stop_token_ids)):
            wrong = next((token for token in tokens if token >= size), None)
            if wrong is not None:
                raise InputError(f"{name} names token {wrong}: the vocabulary has {size}")


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token and the natural logarithm of its probability. `token_id` is None where a server does not tell it; `text`
    is what a server says of the token, and empty where the model runs here."""

    logprob: float
    token_id: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The token of one place, and the likeliest tokens there, likeliest first: as many as were asked for, the token
    itself among them or not."""

    chosen: Logprob
    likeliest: Sequence[Logprob] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step of decoding adds to the text: empty while a character or a stop string may still be under way.

    `token_id` is None where a server does not tell it. `sample` says to which of the `n` answers it belongs. `logprobs`
    has one entry for each token of the piece where they were asked for.
    """

    text: str
    token_id: int | None
    sample: int = 0
    logprobs: Sequence[TokenLogprobs] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished answer. `token_ids` holds all that was decoded, the end token included; `text` is what they spell
    without special tokens and before the stop string. `token_ids` is empty where a server does not tell them.

    `logprobs` has one entry for each token where they were asked for. Where `n` answers were asked for, this is the
    first of them and `others` holds the rest.
    """

    text: str
    token_ids: Sequence[int]
    finish_reason: FinishReason
    timing: Timing
    usage: Usage
    logprobs: Sequence[TokenLogprobs] = ()
    others: Sequence[Completion] = ()

    @property
    def samples(self) -> Sequence[Completion]:
        """All answers to the prompt, this one first."""
        return (self, *self.others)


ROOT = -1
"""In an exploration, the parent of nodes that follow the prompt itself."""


def split(parts: Sequence[Part]) -> tuple[list[int], list[tuple[int, ...]]]:
    """What opens a prompt, and the passages right behind it."""
    opening: list[int] = []
    passages: list[tuple[int, ...]] = []
    for part in parts:
        if part.passage:
            passages.append(part.token_ids)
        elif passages:
            break
        else:
            opening += part.token_ids
    return opening, passages


def check_prompt(prompt: Prompt) -> None:
    """Raises InputError unless `prompt` is a text, messages or token ids, and not empty."""
    shapes = "a prompt is a text, a list of messages, of token ids or of parts"
    if not isinstance(prompt, Sequence):
        raise InputError(f"{shapes}, not {type(prompt).__name__}")
    if not prompt:
        raise InputError("the prompt is empty")
    if isinstance(prompt, str):
        return
    if not any(all(type(part) is kind for part in prompt) for kind in (Message, int, Part)):
        raise InputError(f"{shapes}, nothing mixed")


def check_prompts(prompts: Sequence[Prompt]) -> None:
    """Raises InputError where a single prompt was given in place of a list of them."""
    if isinstance(prompts, str) or (prompts and isinstance(prompts[0], Message | int | Part)):
        raise InputError("generate takes a list of prompts: put the prompt into brackets")
    for prompt in prompts:
        check_prompt(prompt)


def _all(values: object, kind: type | UnionType) -> bool:
    """Whether `values` is a collection of `kind` alone. A text is no collection, True and False are no numbers."""
    if isinstance(values, str) or not isinstance(values, Collection):
        return False
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
