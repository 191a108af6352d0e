"""Tokens that were there already, made less likely."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.engine.sample.rows import column, flat


def penalise_repetition(logits: torch.Tensor, seen: torch.Tensor, penalties: Sequence[float]) -> torch.Tensor:
    """Divides positive logits of tokens that are `seen` [rows, vocab] by the row's penalty and multiplies negative ones
    with it. Keskar et al. 2019, "CTRL", arXiv 1909.05858; negative logits as transformers and vLLM have it."""
    penalty = column(penalties, logits)
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def penalise_output(
    logits: torch.Tensor, counts: torch.Tensor, frequency: Sequence[float], presence: Sequence[float]
) -> torch.Tensor:
    """Takes off each logit `frequency` times its token's count and, if there is any, `presence`. `counts` [rows, vocab]
    is of the output alone. OpenAI's two penalties."""
    return logits - column(frequency, logits) * counts - column(presence, logits) * (counts > 0)


def mark(seen: torch.Tensor, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """`seen` [rows, vocab] with the `tokens` of each row marked as well, in place."""
    seen.view(-1).index_fill_(0, flat(tokens, seen), True)
    return seen


def count(tokens: Sequence[Sequence[int]], logits: torch.Tensor) -> torch.Tensor:
    """How often each token stands among the `tokens` of each row, [rows, vocab]."""
    counts = torch.zeros_like(logits)
    places = flat(tokens, logits)
    return counts.view(-1).index_add_(0, places, counts.new_ones(len(places))).view_as(logits)
