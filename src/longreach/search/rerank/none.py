"""`none`: the retriever's order stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longreach.search.rerank import rerankers
from longreach.types import Hit


@rerankers.register("none")
@dataclass
class Keep:
    """Hands the hits back as they are."""

    def rerank(self, query: str, hits: Sequence[Hit]) -> list[Hit]:
        """`hits`."""
        return list(hits)
