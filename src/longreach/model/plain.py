"""Attention among the tokens of one text, all weights at once: for looking at a model, not for speed."""

from __future__ import annotations

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part


def plain_weights(query: torch.Tensor, key: torch.Tensor, scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal weights `[heads, tokens, tokens]` and log-sum-exp `[heads, tokens]` (float32) of `query [tokens, heads,
    dim]` and `key [tokens, kv_heads, dim]`."""
    keys = key.float().repeat_interleave(query.shape[1] // key.shape[1], 1)
    logits = torch.einsum("qhd,khd->hqk", query.float(), keys) * scores.scale
    if scores.softcap is not None:
        logits = scores.softcap * torch.tanh(logits / scores.softcap)
    at = torch.arange(len(query), device=query.device)
    unseen = at[None] > at[:, None]
    if scores.window is not None:
        unseen |= at[None] <= at[:, None] - scores.window
    logits = logits.masked_fill(unseen, -torch.inf)
    return logits.softmax(-1), torch.logsumexp(logits, -1)


def plain_part(weights: torch.Tensor, lse: torch.Tensor, value: torch.Tensor) -> Part:
    """What `weights` make of `value [tokens, kv_heads, dim]`, as steps give it."""
    values = value.float().repeat_interleave(len(weights) // value.shape[1], 1)
    return torch.einsum("hqk,khd->qhd", weights, values).to(value.dtype), lse.T
