"""Rerankers: a second, dearer look at the hits of a retriever. One method a file, named as its spec names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from longreach.registry import Family
from longreach.types import Hit


class Reranker(Protocol):
    """Orders hits anew."""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits, best first, `score` replaced and the earlier scores kept in `scores`."""
        ...


rerankers: Family[Reranker] = Family("rerankers", __name__)
