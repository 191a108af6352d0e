"""`cache_craft`: the tokens that looked outside their chunk when it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.errors import InputError
from longreach.kv.reuse.reuse import Lead, Reuse, StoredTokens, amount, check_share, reuses


@reuses.register("cache_craft")
@dataclass
class CacheCraft(Reuse):
    """Tokens that attended most to what stood before their chunk when it was read are computed again, and more of them
    where a chunk leans more on its context (Agarwal et al. 2025, arXiv 2502.15734).

    With a the attention of a chunk to what stood before it and b that within it, its context impact is
    sigmoid(a / b), and its share of recomputing goes with that, times one minus the overlap of the contexts then and
    now. Here chunks are read behind filler, so no context overlaps; attention to the prefix counts as within; shares
    are scaled so that `share` of all tokens is computed.
    """

    notes: ClassVar[bool] = True
    share: float = 0.15
    lead: Lead = "filler"

    def __post_init__(self) -> None:
        check_share(self.share)

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        if stored.outward is None:
            raise InputError("cache_craft needs what was noted when the chunks were read: read them for it again")
        sizes = torch.tensor([end - start for start, end in stored.chunks], dtype=torch.float32)
        outside = torch.stack([stored.outward[start:end].float().mean() for start, end in stored.chunks])
        impact = torch.sigmoid(outside / (1 - outside).clamp(min=1e-6))
        shares = _shares(impact, sizes, self.share)
        depths = torch.zeros(stored.tokens, dtype=torch.long)
        for (start, end), part in zip(stored.chunks, shares.tolist(), strict=True):
            chosen = stored.outward[start:end].topk(amount(part, end - start)).indices
            depths[start + chosen] = stored.layers
        return depths


def _shares(impact: torch.Tensor, sizes: torch.Tensor, share: float) -> torch.Tensor:
    """For each chunk a share in proportion to its `impact`, at most 1, so that they make up `share` of all tokens."""
    shares, below = torch.zeros_like(impact), torch.ones_like(impact, dtype=torch.bool)
    for _ in range(len(impact)):
        left = share * sizes.sum() - sizes[~below].sum()
        shares[below] = left * impact[below] / (impact * sizes)[below].sum()
        if not bool((shares[below] > 1).any()):
            break
        below &= shares <= 1
        shares.clamp_(max=1.0)
    return shares
