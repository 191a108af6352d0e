"""`epic`: the first tokens of each chunk."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longreach.kv.reuse.reuse import Lead, Reuse, StoredTokens, amount, check_share, reuses


@reuses.register("epic")
@dataclass
class Epic(Reuse):
    """The first tokens of each chunk are computed again, so that they are no attention sinks in the middle of a prompt
    (LegoLink; Hu et al. 2024, arXiv 2410.15332). `share` is that of each chunk; the paper gives every chunk the same
    number of tokens, which is the same for chunks of one length."""

    share: float = 0.15
    lead: Lead = "prefix"

    def __post_init__(self) -> None:
        check_share(self.share)

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        depths = torch.zeros(stored.tokens, dtype=torch.long)
        for start, end in stored.chunks:
            depths[start : start + amount(self.share, end - start)] = stored.layers
        return depths
