"""The first k hits that fit the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longreach.context.choose import choosers
from longreach.context.fit import fit
from longreach.types import Budget, Hit


@choosers.register("top_k")
@dataclass(frozen=True)
class TopK:
    """Take the `k` best hits, as many of them as the budget holds."""

    k: int = 5

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError("k must be at least 1")

    def choose(self, query: str, hits: Sequence[Hit], budget: Budget) -> list[Hit]:
        return fit(hits[: self.k], budget)
