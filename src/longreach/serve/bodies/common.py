"""What several kinds of request have in common."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from longreach.engine import Sampling
from longreach.errors import InputError
from longreach.serve.refusals import bad

Metadata: TypeAlias = dict[Annotated[str, Field(max_length=100)], bool | int | float | str]
Texts: TypeAlias = str | list[str]


class Body(BaseModel):
    """A request: what it does not know is an error, and not passed over; a number is no text, and no truth value."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        """In JSON, 23.0 is a whole number too."""
        if not isinstance(given, dict):
            return given
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in given.items()
        }


class Budget(Body):
    """What an answer may cost. `ttft_ms`: its first token comes within so many milliseconds, or it is ended; where
    passages are read, so many are that this can be met. `max_kv_bytes`: its keys and values take no more.
    `max_prompt_tokens`: its prompt is no longer. `timeout_ms`: all of it takes no longer."""

    ttft_ms: int | None = Field(default=None, ge=1)
    max_kv_bytes: int | None = Field(default=None, ge=1)
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    timeout_ms: int | None = Field(default=None, ge=1)

    @property
    def ttft(self) -> float | None:
        """Seconds."""
        return None if self.ttft_ms is None else self.ttft_ms / 1000

    @property
    def timeout(self) -> float | None:
        """Seconds."""
        return None if self.timeout_ms is None else self.timeout_ms / 1000


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Generation(Body):
    """The options of chat completions and completions that are the same: OpenAI's, those that vLLM and llama.cpp have
    beside them, and a budget."""

    model: str = Field(max_length=1000)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=16)
    stop: Texts | None = None
    seed: int | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(default=None, max_length=1024)
    user: str | None = None
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    typical_p: float | None = Field(default=None, gt=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0)
    repeat_penalty: float | None = Field(default=None, gt=0)
    stop_token_ids: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, max_length=64)
    ignore_eos: bool | None = None
    min_tokens: int | None = Field(default=None, ge=0)
    budget: Budget = Budget()

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with what it cost."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, max_tokens: int, logprobs: int | None) -> Sampling:
        """As the engine takes it. Raises Refusal."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > 16 or any(len(stop) > 1000 for stop in stops):
            raise bad("at most 16 stop strings of at most 1000 characters", "stop")
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("top_p", "n", "presence_penalty", "frequency_penalty", "min_p", "typical_p", "ignore_eos")
            if getattr(self, name) is not None
        }
        penalty = self.repeat_penalty if self.repetition_penalty is None else self.repetition_penalty
        try:
            return Sampling(
                **given,
                max_tokens=max_tokens,
                min_tokens=self.min_tokens or 0,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_k=max(0, self.top_k or 0),
                repetition_penalty=1.0 if penalty is None else penalty,
                stop=tuple(stop for stop in stops if stop),
                stop_token_ids=tuple(self.stop_token_ids or ()),
                seed=None if self.seed is None else self.seed % 2**63,
                logit_bias=self._bias(),
                logprobs=logprobs,
            )
        except InputError as error:
            raise bad(str(error)) from None

    def _bias(self) -> dict[int, float]:
        try:
            return {int(token): bias for token, bias in (self.logit_bias or {}).items()}
        except ValueError:
            raise bad("logit_bias is a table from token ids to numbers", "logit_bias") from None


class Usage(BaseModel):
    """What an answer cost, in tokens. `prompt_tokens_details.cached_tokens` of the prompt were not computed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] = Field(default_factory=dict)
    kv_bytes: int = 0
