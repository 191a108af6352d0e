"""What is about as surprising as was to be expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.engine.sample.rows import column, wide


def keep_typical(logits: torch.Tensor, p: Sequence[float]) -> torch.Tensor:
    """Cuts all but the fewest tokens whose surprise, -log of the probability, is nearest to the distribution's entropy
    and whose mass reaches p. Meister et al. 2022, "Locally Typical Sampling", arXiv 2202.00666."""
    surprise = -logits.log_softmax(dim=-1, dtype=wide(logits.device))
    masses = (-surprise).exp()
    entropy = torch.where(masses > 0, masses * surprise, 0.0).sum(dim=-1, keepdim=True)
    strangeness = (surprise - entropy).abs()
    rising, order = strangeness.sort(dim=-1, stable=True)
    taken = masses.gather(-1, order)
    before = taken.cumsum(dim=-1) - taken
    kept = (before < column(p, masses)).sum(dim=-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(strangeness > rising.gather(-1, kept - 1), float("-inf"))
