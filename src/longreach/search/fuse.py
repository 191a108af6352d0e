"""Fusion: several rankings of the same rows into one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def reciprocal_rank(rankings: Sequence[Sequence[K]], weights: Sequence[float], k: float = 60.0) -> dict[K, float]:
    """Scores `sum(weight / (k + rank))` over rankings, rank from 1, best first.

    Cormack, Clarke & Büttcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods".
    """
    scores: dict[K, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return best_first(scores)


def convex(rankings: Sequence[Mapping[K, float]], weights: Sequence[float]) -> dict[K, float]:
    """Scores `sum(weight * score / best)`, where `best` is the ranking's highest score for this question; best first.

    A key that a ranking lacks, or whose score there is below 0, has 0 there. Bruch, Gai & Ingber 2023 (arXiv
    2210.11934): scaling from a floor that does not depend on the question; 0 is the floor of BM25 and, nearly, of the
    cosines of sentence encoders.
    """
    scores: dict[K, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        best = max(ranking.values(), default=0.0)
        for key, score in ranking.items():
            scores[key] = scores.get(key, 0.0) + (weight * max(score, 0.0) / best if best > 0 else 0.0)
    return best_first(scores)


def best_first(scores: Mapping[K, float]) -> dict[K, float]:
    """The same scores from high to low; equal ones stay in their order."""
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
