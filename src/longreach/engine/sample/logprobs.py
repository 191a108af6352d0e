"""Log-probabilities, as people want to see them."""

from __future__ import annotations

import torch


def log_probabilities(logits: torch.Tensor, tokens: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the token of each row, [rows, 1 + most] with those of the `most` likeliest behind it, and whose they are, the
    same shape. `tokens` [rows]."""
    values, ids = logits.topk(min(most, logits.shape[-1]), dim=-1)
    ids = torch.cat([tokens[:, None], ids], dim=-1)
    values = torch.cat([logits.gather(-1, tokens[:, None]), values], dim=-1)
    return values - logits.logsumexp(dim=-1, keepdim=True), ids
