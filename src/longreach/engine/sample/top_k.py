"""The k likeliest tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from longreach.engine.sample.rows import send


def keep_top_k(logits: torch.Tensor, k: Sequence[int]) -> torch.Tensor:
    """Cuts what is less likely than the k-th likeliest of the row, k from 1. Fan et al. 2018, arXiv 1805.04833."""
    known = [min(row, logits.shape[-1]) for row in k]
    largest = logits.topk(max(known), dim=-1).values
    last = largest.gather(-1, send([row - 1 for row in known], np.int64, logits.device)[:, None])
    return logits.masked_fill(logits < last, float("-inf"))
