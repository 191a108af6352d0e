"""How much a model's answers mind that its keys and values are off: measured by gradients, once for each model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from longreach.attention.rotation import Rotation
from longreach.kv.codec.sensitivity import Sensitivity
from longreach.kv.codec.upright import turn_back
from longreach.model.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Reading:
    """Tokens of a prompt, of which `[start, end)` are passages, and of its answer."""

    prompt: Sequence[int]
    start: int
    end: int
    answer: Sequence[int]


def measure(
    loaded: LoadedModel,
    rotations: Sequence[Rotation],
    readings: Sequence[Reading],
    repeats: int = 2,
    seed: int = 0,
    fingerprint: str | None = None,
) -> Sensitivity:
    """The Fisher information of an answer's tokens in the keys (turned back) and values of the passages.

    To second order an error `e` adds `e F e / 2` to the KL divergence from the exact answer; of F its diagonal is
    estimated: the squared gradient of the log-likelihood of tokens that are drawn from the model itself, with random
    signs so that one pass backward serves all tokens of an answer (Hutchinson 1989). A dozen readings suffice: channels
    are ten times as far apart as two estimates of one.
    """
    generator = torch.Generator(loaded.device).manual_seed(seed)
    sums: list[torch.Tensor] = []
    tokens = 0
    with plain_attention(loaded.model):
        for reading in readings:
            for _ in range(repeats):
                gradients = _gradients(loaded.model, reading, generator)
                upright = turn_back(gradients[0].float().cpu(), rotations)
                found = [
                    x[:, :, reading.start : reading.end].double().square().sum(2) / len(reading.answer)
                    for x in (upright, gradients[1].cpu())
                ]
                sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
                tokens += reading.end - reading.start
    keys, values = ((side / tokens).float() for side in sums)
    return Sensitivity(loaded.fingerprint if fingerprint is None else fingerprint, keys, values)


def _gradients(model: Any, reading: Reading, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a randomly signed sum of log-likelihoods, in keys and values `[layers, kv_heads, tokens, dim]`."""
    from transformers import DynamicCache

    device = generator.device
    with torch.no_grad():
        seen = model(torch.tensor([reading.prompt[: reading.end]], device=device), use_cache=True).past_key_values
    keys, values = (
        torch.stack([getattr(layer, name)[0] for layer in seen.layers]).requires_grad_() for name in ("keys", "values")
    )
    cache = DynamicCache()
    for layer in range(len(keys)):
        cache.update(keys[layer][None], values[layer][None], layer)
    rest = [*reading.prompt[reading.end :], *reading.answer[:-1]]
    with torch.enable_grad():
        logits = model(torch.tensor([rest], device=device), past_key_values=cache, use_cache=True).logits[0]
        chances = logits[len(reading.prompt) - reading.end - 1 :].float().log_softmax(-1)
        drawn = torch.multinomial(chances.detach().exp(), 1, generator=generator)
        signs = torch.randint(0, 2, drawn.shape, generator=generator, device=device) * 2 - 1
        found = torch.autograd.grad((chances.gather(1, drawn) * signs).sum(), (keys, values))
    return found[0], found[1]


@contextmanager
def plain_attention(model: Any) -> Iterator[None]:
    """The model with transformers' own attention, through which gradients flow."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
