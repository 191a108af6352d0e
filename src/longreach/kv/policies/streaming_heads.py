"""`streaming_heads`: most heads see the beginning and the recent past only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.errors import SpecError
from longreach.kv.policies.policy import LayerView, Policy, policies


@policies.register("streaming_heads")
@dataclass
class StreamingHeads(Policy):
    """The KV heads in `retrieval`, pairs of layer and head, keep all; every other keeps the first `sinks` tokens and
    the last `window` (Xiao et al. 2024, DuoAttention, arXiv 2410.10819). While the answer grows, what leaves the
    window is dropped `every` so many tokens.

    Which heads need the whole text can be found with `longreach.model.heads` (RazorAttention, arXiv 2407.15891).
    """

    drops: ClassVar[bool] = True
    retrieval: tuple[tuple[int, int], ...] = ()
    sinks: int = 4
    window: int = 256
    every: int = 256

    def __post_init__(self) -> None:
        if self.sinks < 0 or self.window < 1 or self.every < 1:
            given = f"sinks={self.sinks}, window={self.window}, every={self.every}"
            raise SpecError(f"{given}: sinks must be at least 0, window and every at least 1")

    def keeps_all(self, prompt: int, tokens: int) -> bool:
        return self.sinks + self.window >= tokens

    def keep(self, view: LayerView) -> list[torch.Tensor]:
        heads, entries = view.keys.shape[:2]
        positions = torch.arange(entries, device=view.keys.device)
        return [self.stay(view.layer, head, positions, entries).nonzero()[:, 0] for head in range(heads)]

    def stay(self, layer: int, head: int, positions: torch.Tensor, position: int) -> torch.Tensor:
        if (layer, head) in self.retrieval:
            return torch.ones_like(positions, dtype=torch.bool)
        return (positions < self.sinks) | (positions >= position - self.window)
