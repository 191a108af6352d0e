"""Tokens made likelier, less likely or impossible by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from longreach.engine.sample.rows import flat, send


def add_bias(logits: torch.Tensor, biases: Sequence[Mapping[int, float]]) -> torch.Tensor:
    """Adds to the logit of each token what `biases` has for it in the row."""
    vocab = logits.shape[-1]
    known = [{token: bias for token, bias in row.items() if token < vocab} for row in biases]
    added = send([bias for row in known for bias in row.values()], np.float32, logits.device)
    changed = logits.clone()
    changed.view(-1).index_add_(0, flat([list(row) for row in known], logits), added)
    return changed


def forbid(logits: torch.Tensor, tokens: Sequence[Sequence[int]]) -> torch.Tensor:
    """Makes the `tokens` of each row impossible."""
    changed = logits.clone()
    changed.view(-1).index_fill_(0, flat(tokens, logits), float("-inf"))
    return changed
