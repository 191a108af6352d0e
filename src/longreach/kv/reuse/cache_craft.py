"""`cache_craft`: the tokens that looked outside their chunk when it was read."""

from __future__ import annotations

from dataclasses import dataclass

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
    now. Here chunks are read behind filler, so no context overlaps; shares are scaled so that `share` of all tokens is
    computed.
    """

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
        shares = (self.share * impact * sizes.sum() / (impact * sizes).sum()).clamp(max=1.0)
        depths = torch.zeros(stored.tokens, dtype=torch.long)
        for (start, end), part in zip(stored.chunks, shares.tolist(), strict=True):
            chosen = stored.outward[start:end].topk(amount(part, end - start)).indices
            depths[start + chosen] = stored.layers
        return depths
