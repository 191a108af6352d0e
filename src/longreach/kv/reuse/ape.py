"""`ape`: chunks side by side, and attention to them made sharper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.errors import SpecError
from longreach.kv.reuse.reuse import Reuse, StoredTokens, reuses
from longreach.kv.temper import Temper


@reuses.register("ape")
@dataclass
class Ape(Reuse):
    """Nothing is computed again. All chunks share the prefix and the place right behind it; what comes after them
    attends to their tokens with logits over `temperature`, and to the chunks as a whole with their log-sum-exp times
    `scale` (Yang et al. 2025, arXiv 2502.05431). Both are found by trying, at most 1."""

    parallel: ClassVar[bool] = True
    temperature: float = 0.9
    scale: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.temperature <= 1 or not 0 < self.scale <= 1:
            raise SpecError(f"temperature={self.temperature}, scale={self.scale}: both above 0.0 and at most 1.0")

    @property
    def temper(self) -> Temper:
        return Temper(self.temperature, self.scale)

    def depths(self, stored: StoredTokens) -> torch.Tensor:
        return torch.zeros(stored.tokens, dtype=torch.long)
