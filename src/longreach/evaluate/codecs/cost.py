"""What codecs cost: bytes of passages, and how far answers behind what they give back are from the exact ones."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from longreach.evaluate.codecs.case import Case, behind
from longreach.evaluate.metrics.fidelity import SURE
from longreach.kv.codec import Codec
from longreach.model.load import LoadedModel

AT_ONCE = 8
"""Codecs whose keys and values are read on behind in one pass."""


@dataclass
class Cost:
    """What was seen of one codec so far. For each case: the mean `kl` in nats over the tokens of its answer, `bytes` of
    its passages and their `tokens`, seconds of `encoding` and `decoding` them, and the greedy `answers`, where they
    were asked for; for each token of which the exact run is sure, whether it is still the likeliest (`sure`)."""

    kl: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    encoding: list[float] = field(default_factory=list)
    decoding: list[float] = field(default_factory=list)
    sure: list[bool] = field(default_factory=list)
    agreed: list[bool] = field(default_factory=list)
    answers: list[list[int]] = field(default_factory=list)

    @property
    def bytes_per_token(self) -> float:
        return sum(self.bytes) / sum(self.tokens)


def add_case(
    loaded: LoadedModel,
    case: Case,
    codecs: Mapping[str, Codec],
    costs: Mapping[str, Cost],
    answered: Sequence[str] = (),
) -> None:
    """Encode each passage of a case by each of `codecs`, decode it, and note in `costs`, by the same names, what that
    took and what became of the answer. Those of `answered` answer by themselves too."""
    names = [*answered, *(name for name in codecs if name not in answered)]
    groups = [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]
    for group in groups:
        kept = [_through(codecs[name], case, costs[name]) for name in group]
        speaking = [name for name in group if name in answered]
        logits, answers = behind(loaded, case, kept, answered=len(speaking))
        for name, found in zip(group, logits, strict=True):
            _compare(case, found, costs[name])
        for name, answer in zip(speaking, answers, strict=True):
            costs[name].answers.append(answer)


def _through(codec: Codec, case: Case, cost: Cost) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values of a case with those of its passages as the codec gives them back."""
    keys, values = case.keys.clone(), case.values.clone()
    size, seconds = 0, [0.0, 0.0]
    for start, end in case.spans:
        began = time.perf_counter()
        data = codec.encode(keys[:, :, start:end], values[:, :, start:end], start)
        between = time.perf_counter()
        back = codec.decode(data)
        seconds = [seconds[0] + between - began, seconds[1] + time.perf_counter() - between]
        keys[:, :, start:end], values[:, :, start:end] = back
        size += len(data)
    cost.bytes.append(size)
    cost.tokens.append(sum(end - start for start, end in case.spans))
    cost.encoding.append(seconds[0])
    cost.decoding.append(seconds[1])
    return keys, values


def _compare(case: Case, found: torch.Tensor, cost: Cost) -> None:
    exact = case.exact
    cost.kl.append(float((exact.exp() * (exact - found)).sum(-1).mean()))
    agreed = found.argmax(-1) == exact.argmax(-1)
    cost.agreed += agreed.tolist()
    cost.sure += agreed[exact.amax(-1).exp() >= SURE].tolist()
