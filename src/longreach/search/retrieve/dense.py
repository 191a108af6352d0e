"""`dense`: the meaning of the question, by one vector a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from longreach.library import Library
from longreach.library.filters import Under, Where
from longreach.registry import resource
from longreach.search.mmr import diversified
from longreach.search.retrieve import retrievers
from longreach.types import Hit


@retrievers.register("dense")
@dataclass
class Dense:
    """The chunks whose vectors are nearest to the question's by cosine. Karpukhin et al. 2020 (arXiv 2004.04906).

    With `diversity` above 0, that share of a hit's worth is its being unlike the hits before it
    (`longreach.search.mmr`), chosen among the `depth` nearest.
    """

    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    depth: Annotated[int, Field(ge=1)] = 100
    library: Library = resource()
    where: Where | None = resource()
    under: Under = resource()

    def retrieve(self, query: str, k: int) -> list[Hit]:
        """At most `k` hits, nearest first."""
        with self.library.view(self.where, self.under) as view:
            if view.empty or not query.strip():
                return []
            vector = self.library.encoder.embed_queries([query])[0]
            near = view.nearest(vector, max(k, self.depth) if self.diversity else k)
            chosen = diversified(near, view.vectors, k, self.diversity)
            return view.hits([(row, near[row], {"dense": near[row]}) for row in chosen])
