"""What is not too unlikely beside the likeliest."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.engine.sample.rows import column


def keep_min_p(logits: torch.Tensor, p: Sequence[float]) -> torch.Tensor:
    """Cuts tokens less than p times as likely as the likeliest; p is more than 0. Nguyen et al. 2024, "Turning Up the
    Heat: Min-p Sampling", arXiv 2407.01082. Told by the logits, where p times a probability is log p more."""
    least = logits.amax(dim=-1, keepdim=True) + column(p, logits).log()
    return logits.masked_fill(logits < least, float("-inf"))
