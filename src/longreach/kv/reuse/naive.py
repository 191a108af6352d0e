"""`naive`: what was stored is taken as it is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longreach.kv.reuse.reuse import Lead, Reuse, StoredTokens, reuses


@reuses.register("naive")
@dataclass
class Naive(Reuse):
    """Nothing is computed again. Keys are turned to their places, and no chunk knows of another."""

    lead: Lead = "prefix"

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        return torch.zeros(stored.tokens, dtype=torch.long)
