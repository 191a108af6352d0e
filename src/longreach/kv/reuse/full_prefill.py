"""`full_prefill`: nothing is reused."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longreach.kv.reuse.reuse import Reuse, StoredTokens, reuses


@reuses.register("full_prefill")
@dataclass
class FullPrefill(Reuse):
    """Every token is computed again: what all others are measured against."""

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        return torch.full((stored.tokens,), stored.layers)
