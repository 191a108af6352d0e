"""The nucleus."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.engine.sample.rows import column, ordered, wide


def keep_top_p(logits: torch.Tensor, p: Sequence[float]) -> torch.Tensor:
    """Cuts all but the fewest likeliest tokens whose mass reaches p, more than 0; the likeliest always stays.

    Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", arXiv 1904.09751.
    """
    falling = ordered(logits)
    masses = falling.softmax(dim=-1, dtype=wide(logits.device))
    before = masses.cumsum(dim=-1) - masses
    kept = (before < column(p, masses)).sum(dim=-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(logits < falling.gather(-1, kept - 1), float("-inf"))
