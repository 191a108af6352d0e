"""From the logits of a batch to a token for each row.

The order is that of transformers 5: bias, penalties, what may not come yet, temperature, top-k, top-p, min-p, typical.
vLLM has the same but for min-p, which it applies before top-k and top-p. Imported only where a model runs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from longreach.engine.requests import Sampling
from longreach.engine.sample.bias import add_bias, forbid
from longreach.engine.sample.drawn import Drawn, Sampled
from longreach.engine.sample.inverse import invert
from longreach.engine.sample.logprobs import log_probabilities
from longreach.engine.sample.min_p import keep_min_p
from longreach.engine.sample.penalties import count, mark, penalise_output, penalise_repetition
from longreach.engine.sample.randomness import Uniforms
from longreach.engine.sample.rows import put, take, wide
from longreach.engine.sample.temperature import scale
from longreach.engine.sample.top_k import keep_top_k
from longreach.engine.sample.top_p import keep_top_p
from longreach.engine.sample.typical import keep_typical


class Source:
    """What all tokens of one answer have in common: its options, its prompt, the tokens that end it, its randomness.

    Make one for each of the `n` answers of a request, numbered by `sample`; without a seed each has its own.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int] = (), ends: frozenset[int] = frozenset(), sample: int = 0
    ) -> None:
        self.sampling = sampling
        self.ends = tuple(sorted(ends))
        self.uniforms = Uniforms(secrets.randbits(63) if sampling.seed is None else sampling.seed, sample)
        self._prompt = prompt
        self._seen: torch.Tensor | None = None

    def prompt_tokens(self, like: torch.Tensor) -> torch.Tensor:
        """Which tokens stand in the prompt, [vocab], bool; found once and kept where `like` [rows, vocab] is."""
        if self._seen is None or self._seen.device != like.device:
            self._seen = mark(like.new_zeros((1, like.shape[-1]), dtype=torch.bool), [self._prompt])[0]
        return self._seen


@dataclass(frozen=True, slots=True)
class Draw:
    """A row of logits wants a token: the one that follows `output`, all tokens of the answer so far.

    Rows may be of different answers, or of one answer with different ends, as when a draft is verified.
    """

    source: Source
    output: Sequence[int] = ()


Step: TypeAlias = tuple[Callable[[Draw], bool], Callable[[torch.Tensor, Sequence[Draw]], torch.Tensor]]
"""Which draws want a change, and the change of their rows."""


def sample(logits: torch.Tensor, draws: Sequence[Draw]) -> Sampled:
    """A token for each row of `logits` [rows, vocab]. A row that fails does not disturb the others."""
    return draw(logits, draws).read()


def draw(logits: torch.Tensor, draws: Sequence[Draw]) -> Drawn:
    """As `sample`, but nothing waits for the device until the result is read. `logits` stays as it is."""
    raw = logits.float()
    adjusted = adjust(raw, draws)
    best, tokens = _likeliest(adjusted)
    # A maximum is NaN where any value is, and -inf where nothing is possible.
    sound = best.isfinite() if adjusted is raw else best.isfinite() & raw.amax(dim=-1).isfinite()
    random = [row for row, one in enumerate(draws) if not one.source.sampling.greedy]
    if random:
        chosen = [draws[row] for row in random]
        uniforms = [one.source.uniforms[len(one.output)] for one in chosen]
        drawn = invert(_shaped(take(adjusted, random), chosen), uniforms)
        tokens = put(tokens, random, drawn)
    known = torch.where(sound, tokens, -1)
    asked = {row: one.source.sampling.logprobs for row, one in enumerate(draws)}
    wanted = {row: most for row, most in asked.items() if most is not None}
    if not wanted:
        return Drawn(known, {}, raw.new_empty((0, 1)), tokens.new_empty((0, 1)))
    of = list(wanted)
    return Drawn(known, wanted, *log_probabilities(take(raw, of), take(tokens, of), max(wanted.values())))


def greedy(logits: torch.Tensor) -> torch.Tensor:
    """The most likely token of each row of `logits` [rows, vocab], -1 where they are not numbers: what `draw` takes for
    `plain` draws."""
    best, tokens = logits.max(dim=-1)
    return torch.where(best.isfinite(), tokens, -1)


def _likeliest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each row of `logits` [rows, vocab], NaN where there is one, and where it stands."""
    if logits.device.type != "cpu":
        best, tokens = logits.max(dim=-1)
        return best, tokens
    tokens = torch.from_numpy(logits.numpy().argmax(axis=-1))  # ten times as fast as PyTorch's on a processor
    return logits.gather(1, tokens[:, None])[:, 0], tokens


def plain(one: Draw) -> bool:
    """Whether the next token is simply the most likely one, and that is all that is wanted to know."""
    sampling = one.source.sampling
    return sampling.greedy and sampling.logprobs is None and not any(wants(one) for wants, _ in _ADJUSTMENTS)


def distribution(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """The probabilities [rows, vocab] with which `sample` draws the tokens of rows none of which is greedy: what a
    drafted token is accepted or refused by."""
    return _shaped(adjust(logits.float(), draws), draws)


def adjust(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Logits [rows, vocab] after what greedy answers are subject to as well; `logits` itself where that is nothing."""
    return _apply(_ADJUSTMENTS, logits, draws)


def _shaped(adjusted: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Probabilities [rows, vocab] after the temperature and the cuts."""
    scaled = scale(adjusted, _values(draws, "temperature"))
    return _apply(_CUTS, scaled, draws).softmax(dim=-1, dtype=wide(adjusted.device))


def _apply(steps: Sequence[Step], logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Each step on the rows that want it."""
    for wants, change in steps:
        rows = [row for row, one in enumerate(draws) if wants(one)]
        if rows:
            logits = put(logits, rows, change(take(logits, rows), [draws[row] for row in rows]))
    return logits


def _values(draws: Sequence[Draw], option: str) -> list[Any]:
    return [getattr(one.source.sampling, option) for one in draws]


def _bias(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    return add_bias(logits, _values(draws, "logit_bias"))


def _repetition(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    seen = mark(torch.stack([one.source.prompt_tokens(logits) for one in draws]), [one.output for one in draws])
    return penalise_repetition(logits, seen, _values(draws, "repetition_penalty"))


def _repeated_output(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    counts = count([one.output for one in draws], logits)
    return penalise_output(logits, counts, _values(draws, "frequency_penalty"), _values(draws, "presence_penalty"))


def _early_end(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    return forbid(logits, [one.source.ends for one in draws])


_ADJUSTMENTS: Sequence[Step] = (
    (lambda one: bool(one.source.sampling.logit_bias), _bias),
    (lambda one: one.source.sampling.repetition_penalty != 1, _repetition),
    (lambda one: any((one.source.sampling.frequency_penalty, one.source.sampling.presence_penalty)), _repeated_output),
    (lambda one: len(one.output) < one.source.sampling.min_tokens, _early_end),
)

_CUTS: Sequence[Step] = (
    (lambda one: one.source.sampling.top_k > 0, lambda x, draws: keep_top_k(x, _values(draws, "top_k"))),
    (lambda one: one.source.sampling.top_p < 1, lambda x, draws: keep_top_p(x, _values(draws, "top_p"))),
    (lambda one: one.source.sampling.min_p > 0, lambda x, draws: keep_min_p(x, _values(draws, "min_p"))),
    (lambda one: one.source.sampling.typical_p < 1, lambda x, draws: keep_typical(x, _values(draws, "typical_p"))),
)
