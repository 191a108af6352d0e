"""What answers cost: seconds, tokens a second, bytes; how many a server gives in time; the time that the work itself
takes, whoever else is being served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from longreach.errors import InputError


@dataclass(frozen=True, slots=True)
class Cost:
    """One answer: seconds from the request to its first token and to its last, tokens, and the bytes of its KV cache at
    the end."""

    ttft: float
    total: float
    prompt_tokens: int
    generated_tokens: int
    reused_tokens: int = 0
    kv_bytes: int = 0

    @property
    def per_token(self) -> float | None:
        """Seconds per output token after the first (TPOT); None where there is no second."""
        return (self.total - self.ttft) / (self.generated_tokens - 1) if self.generated_tokens > 1 else None

    @property
    def tokens_per_second(self) -> float:
        """Output tokens over the whole time."""
        return self.generated_tokens / self.total if self.total else 0.0


def goodput(costs: Iterable[Cost], seconds: float, *, ttft: float, per_token: float) -> float:
    """Answers a second that kept both promises, `ttft` seconds to the first token and `per_token` for each later one,
    out of those given in `seconds` (Zhong et al. 2024, DistServe, arXiv 2401.09670)."""
    if seconds <= 0:
        raise InputError(f"goodput over {seconds} seconds: there must be some")
    kept = sum(cost.ttft <= ttft and (cost.per_token or 0.0) <= per_token for cost in costs)
    return kept / seconds


def peak_kv_bytes(costs: Iterable[Cost]) -> int:
    """The most that one answer held."""
    return max((cost.kv_bytes for cost in costs), default=0)


@dataclass(frozen=True, slots=True)
class IdealizedRuntime:
    """The seconds a request takes where nothing is in its way (Narayanan et al. 2023, arXiv 2305.02440): those of
    reading the prompt, between lengths that were measured by a straight line, and `per_token` for each token of the
    answer."""

    prompt_tokens: tuple[int, ...]
    prompt_seconds: tuple[float, ...]
    per_token: float

    def seconds(self, prompt_tokens: int, generated_tokens: int) -> float:
        """The runtime of one request. Beyond the longest prompt measured, the last slope goes on."""
        lengths, times = self.prompt_tokens, self.prompt_seconds
        if prompt_tokens > lengths[-1] and len(lengths) > 1:
            slope = (times[-1] - times[-2]) / (lengths[-1] - lengths[-2])
            reading = times[-1] + slope * (prompt_tokens - lengths[-1])
        else:
            reading = float(np.interp(prompt_tokens, lengths, times))
        return reading + self.per_token * max(0, generated_tokens - 1)


def idealize(costs: Sequence[Cost]) -> IdealizedRuntime:
    """The idealized runtime behind measured answers: for each length of prompt the least time to the first token, for a
    later token the median. Contention only ever adds, so the least is nearest to the truth. Answers that reused
    tokens are left out. Raises InputError where none is left, or none has two tokens."""
    read: dict[int, float] = {}
    for cost in costs:
        if not cost.reused_tokens:
            read[cost.prompt_tokens] = min(cost.ttft, read.get(cost.prompt_tokens, float("inf")))
    later = [cost.per_token for cost in costs if cost.per_token is not None]
    if not read or not later:
        raise InputError("idealize needs answers of two tokens or more whose prompts were read whole")
    lengths = tuple(sorted(read))
    return IdealizedRuntime(lengths, tuple(read[length] for length in lengths), float(np.median(later)))
