"""Maximal marginal relevance: hits that are good and unlike those before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def select(relevance: Floats, vectors: Floats, k: int, diversity: float) -> list[int]:
    """The places of `k` rows, in the order chosen: each is the row with the greatest
    `(1 - diversity) * relevance - diversity * (greatest similarity to a row already chosen)`.

    `relevance` `[rows]` is scaled to [0, 1] first; `vectors` `[rows, dim]` are of unit norm; `diversity` is in [0, 1].
    Carbonell & Goldstein 1998, "The use of MMR, diversity-based reranking for reordering documents and producing
    summaries".
    """
    import numpy as np

    if not len(relevance):
        return []
    spread = float(relevance.max() - relevance.min())
    scaled = (relevance - relevance.min()) / spread if spread > 0 else np.ones_like(relevance)
    nearest = np.zeros(len(scaled), np.float32)
    free = np.ones(len(scaled), bool)
    chosen: list[int] = []
    for _ in range(min(k, len(scaled))):
        marginal = np.where(free, (1 - diversity) * scaled - diversity * nearest, -np.inf)
        best = int(marginal.argmax())
        chosen.append(best)
        free[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return chosen


def diversified(
    scores: Mapping[int, float], vectors: Callable[[Sequence[int]], Floats], k: int, diversity: float
) -> list[int]:
    """The rows of `scores`, which is best first, to show: the first `k`, or what `select` makes of them."""
    import numpy as np

    rows = list(scores)
    if diversity == 0 or not rows:
        return rows[:k]
    relevance = np.array([scores[row] for row in rows], np.float32)
    return [rows[place] for place in select(relevance, vectors(rows), k, diversity)]
