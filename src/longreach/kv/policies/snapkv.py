"""`snapkv`: what the end of the prompt looks at stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from longreach.errors import SpecError
from longreach.kv.policies.policy import LayerView, Policy, amount, check_budget, policies


@policies.register("snapkv")
@dataclass
class SnapKV(Policy):
    """After the prompt was read, each KV head keeps the entries that its last `window` tokens attend to most, and those
    tokens themselves (Li et al. 2024, arXiv 2404.14469).

    The weights are averaged over the window's queries and the query heads of a KV head, then smoothed: each becomes the
    mean of `kernel` neighbours, or with `smooth="max"` the greatest. `budget` is a share of the prompt or a number of
    tokens; `heads="adaptive"` shares the budget of a layer out among its heads by their weights, with at least `floor`
    of an even share for each (Feng et al. 2024, arXiv 2407.11550).
    """

    drops: ClassVar[bool] = True
    budget: float = 0.25
    window: int = 32
    kernel: int = 7
    smooth: Literal["mean", "max"] = "mean"
    heads: Literal["uniform", "adaptive"] = "uniform"
    floor: float = 0.2

    def __post_init__(self) -> None:
        check_budget(self.budget)
        if self.window < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise SpecError(f"window={self.window}, kernel={self.kernel}: both at least 1, the kernel odd")
        if self.smooth not in ("mean", "max"):
            raise SpecError(f"smooth={self.smooth!r} is neither 'mean' nor 'max'")
        self.observes = self.window

    def keeps_all(self, prompt: int, tokens: int) -> bool:
        return amount(self.budget, prompt) == prompt

    def keep(self, view: LayerView) -> list[torch.Tensor]:
        heads, entries = view.keys.shape[:2]
        wanted = amount(self.budget, entries)
        recent = min(len(view.queries), wanted, entries)
        older = entries - recent
        if wanted >= entries:
            return [torch.arange(entries, device=view.keys.device)] * heads
        scores = self.scores(view)[:, :older]
        last = torch.arange(older, entries, device=scores.device)
        best = self._best(scores, wanted - recent)
        return [torch.cat([chosen.sort().values, last]) for chosen in best]

    def scores(self, view: LayerView) -> torch.Tensor:
        """`[kv_heads, entries]`, float32."""
        heads, entries = view.keys.shape[:2]
        window = len(view.queries)
        queries = view.queries.float().view(window, heads, -1, view.queries.shape[-1]).permute(1, 2, 0, 3)
        logits = queries @ view.keys.float()[:, None].transpose(-1, -2) * view.scale
        ahead = torch.ones(window, entries, dtype=torch.bool, device=logits.device).triu(entries - window + 1)
        weights = logits.masked_fill(ahead, -torch.inf).softmax(-1).mean((1, 2))
        pooled = F.avg_pool1d if self.smooth == "mean" else F.max_pool1d
        return pooled(weights[:, None], self.kernel, stride=1, padding=self.kernel // 2)[:, 0]

    def _best(self, scores: torch.Tensor, each: int) -> list[torch.Tensor]:
        if self.heads == "uniform":
            return list(scores.topk(each, -1).indices)
        least = int(self.floor * each)
        ranked = scores.sort(-1, descending=True).indices
        shared = scores.scatter(-1, ranked[:, :least], -torch.inf).flatten()
        chosen = shared.topk(len(scores) * (each - least)).indices
        extra = torch.bincount(chosen // scores.shape[1], minlength=len(scores)).tolist()
        return [ranked[head, : least + more] for head, more in enumerate(extra)]
