"""Sharper or flatter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.engine.sample.rows import column


def scale(logits: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Divides by the temperature, more than 0. The largest logit of each row becomes 0 first, which changes no
    probability and keeps small temperatures from overflowing."""
    return (logits - logits.amax(dim=-1, keepdim=True)) / column(temperatures, logits)
