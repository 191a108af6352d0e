"""From logits to a token."""

from __future__ import annotations

import torch

from longreach.engine.requests import Sampling
from longreach.errors import ModelError


def randomness(sampling: Sampling) -> torch.Generator:
    """A source of randomness of its own for one answer, the same for the same seed."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def choose(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """A token for `logits` [vocab]. Raises ModelError where they are not numbers."""
    if not bool(torch.isfinite(logits.max())):  # the maximum is NaN where any value is
        raise ModelError("the model computed values that are not numbers: try dtype float32 or another model")
    if sampling.temperature == 0:
        return int(logits.argmax())
    scaled = logits.to("cpu", torch.float64)
    probabilities = torch.softmax((scaled - scaled.max()) / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        probabilities = nucleus(probabilities, sampling.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero for all but the fewest likeliest tokens whose mass reaches `top_p`; not scaled to one again.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751.
    """
    ordered, order = probabilities.sort(descending=True)
    mass_before = ordered.cumsum(-1) - ordered
    ordered[mass_before >= top_p] = 0.0
    return torch.zeros_like(probabilities).scatter_(-1, order, ordered)
