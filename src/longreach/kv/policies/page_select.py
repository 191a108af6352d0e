"""`page_select`: everything is kept, and each token reads the pages that can matter most to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.kv.policies.policy import Policy, check_budget, policies


@policies.register("page_select")
@dataclass
class PageSelect(Policy):
    """Each KV head reads, for every token of the answer, the `budget` tokens' worth of full pages whose bound on the
    score is greatest: the sum over channels of the greater of the query times the page's least and greatest key (Tang
    et al. 2024, Quest, arXiv 2406.10774; Yang et al. 2025, LServe, arXiv 2502.14866). Of the query heads that share a
    KV head, the greatest bound counts. The page being written is always read.
    """

    skips: ClassVar[bool] = True
    budget: int = 4096

    def __post_init__(self) -> None:
        check_budget(self.budget)

    def keeps_all(self, prompt: int, tokens: int) -> bool:
        return self.budget >= tokens

    def pages(self, page_size: int) -> int:
        return max(1, -(-self.budget // page_size))

    def select(self, query: torch.Tensor, low: torch.Tensor, high: torch.Tensor, page_size: int) -> torch.Tensor:
        heads, pages, dim = low.shape
        own = query.float().view(heads, -1, dim)
        bounds = own.clamp_min(0) @ high.float().transpose(-1, -2) + own.clamp_max(0) @ low.float().transpose(-1, -2)
        return bounds.amax(1).topk(min(pages, self.pages(page_size)), -1).indices.sort(-1).values
