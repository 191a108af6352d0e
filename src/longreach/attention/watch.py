"""Looking at queries as they come by."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from longreach.attention.attend import Scores


@dataclass
class LastQueries:
    """Keeps the queries `[tokens, heads, dim]` of the last `tokens` tokens, layer by layer."""

    tokens: int
    queries: dict[int, torch.Tensor] = field(default_factory=dict)
    scales: dict[int, float] = field(default_factory=dict)

    def see(self, layer: int, query: torch.Tensor, scores: Scores) -> None:
        """See `Watcher.see`."""
        before = self.queries.get(layer)
        both = query if before is None or len(query) >= self.tokens else torch.cat([before, query])
        self.queries[layer] = both[-self.tokens :].clone()
        self.scales[layer] = scores.scale
