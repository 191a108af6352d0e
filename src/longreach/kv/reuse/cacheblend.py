"""`cacheblend`: the tokens whose keys and values deviate most."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longreach.errors import SpecError
from longreach.kv.reuse.reuse import Lead, Reuse, StoredTokens, amount, check_share, reuses


@reuses.register("cacheblend")
@dataclass
class CacheBlend(Reuse):
    """All tokens are computed through the first layer; from there on, those whose fresh keys and values deviate most
    from the stored ones go on (Yao et al. 2024, arXiv 2405.16444).

    The filter is gradual: at layer 1, the first whose keys and values know of other tokens, `widen * share` of the
    tokens go on, and linearly fewer until `share` at layer `settle`. The deviation of a token is the squared difference
    summed over heads, channels, keys and values. The paper leaves the numbers of the gradual filter open.
    """

    share: float = 0.15
    widen: float = 1.3
    settle: int = 5
    lead: Lead = "prefix"

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.widen < 1 or self.settle < 1:
            raise SpecError(f"widen={self.widen}, settle={self.settle}: both at least 1")

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        return torch.full((stored.tokens,), stored.layers if self.share else 0)

    def narrow(self, layer: int, tokens: int, fresh: torch.Tensor, stored: torch.Tensor) -> torch.Tensor | None:
        if not 1 <= layer <= self.settle:
            return None
        wider = 1 + (self.widen - 1) * (self.settle - layer) / max(1, self.settle - 1)
        wanted = amount(min(1.0, wider * self.share), tokens)
        deviation = (fresh - stored).float().square().sum((0, 1, 3))
        go = torch.zeros(len(deviation), dtype=torch.bool, device=deviation.device)
        go[deviation.topk(min(wanted, len(deviation))).indices] = True
        return go
