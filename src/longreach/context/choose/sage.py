"""SAGE's gradient-based selection: stop where the score falls fastest.

Zhang, Li and Su, "SAGE: A Framework of Precise Retrieval for RAG", 2025, arXiv 2503.01713. Of the framework this is the
selection step alone. Walking down the ranking, the fall from hit i to hit i + 1 is measured against hit i's score above
the lowest score of the list, so that the scale of the retriever does not matter:

    fall(i) = (s_i - s_{i+1}) / (s_i - s_n)

The walk stops at the first fall of at least `fall` once `min_k` hits are taken. With `fall` above 1 it never stops
early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longreach.context.choose import choosers
from longreach.context.fit import fit
from longreach.types import Budget, Hit


@choosers.register("sage")
@dataclass(frozen=True)
class Sage:
    """Take hits until the score falls sharply: at least `min_k`, at most `max_k`."""

    min_k: int = 2
    max_k: int = 10
    fall: float = 0.4

    def __post_init__(self) -> None:
        if not 1 <= self.min_k <= self.max_k:
            raise ValueError("1 <= min_k <= max_k must hold")
        if self.fall <= 0:
            raise ValueError("fall must be above 0")

    def choose(self, query: str, hits: Sequence[Hit], budget: Budget) -> list[Hit]:
        return fit(hits[: self.take(sorted((hit.score for hit in hits), reverse=True))], budget)

    def take(self, scores: Sequence[float]) -> int:
        """How many of the hits with these scores, best first, are taken."""
        lowest = min(scores, default=0.0)
        for i in range(self.min_k - 1, min(self.max_k, len(scores)) - 1):
            height = scores[i] - lowest
            if height <= 0 or (scores[i] - scores[i + 1]) / height >= self.fall:
                return i + 1
        return min(self.max_k, len(scores))
