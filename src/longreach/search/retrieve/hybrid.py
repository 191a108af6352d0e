"""`hybrid`: words and meaning together. The default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from longreach.library import Library
from longreach.library.filters import Under, Where
from longreach.library.view import Ranking
from longreach.registry import resource
from longreach.search.fuse import convex, reciprocal_rank
from longreach.search.mmr import diversified
from longreach.search.retrieve import retrievers
from longreach.types import Hit


@retrievers.register("hybrid")
@dataclass
class Hybrid:
    """The `depth` best of `bm25` and of `dense`, fused; `weight` is the share of `dense`.

    `fusion="convex"` adds the two scores, each scaled from 0 to its best of this question (Bruch et al. 2023, arXiv
    2210.11934); `"rrf"` adds reciprocal ranks `1 / (rank_constant + rank)` (Cormack et al. 2009). `diversity` as in
    `dense`.
    """

    fusion: Literal["convex", "rrf"] = "convex"
    weight: Annotated[float, Field(ge=0, le=1)] = 0.7
    depth: Annotated[int, Field(ge=1)] = 100
    rank_constant: Annotated[float, Field(gt=0)] = 60.0
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    library: Library = resource()
    where: Where | None = resource()
    under: Under = resource()

    def retrieve(self, query: str, k: int) -> list[Hit]:
        """At most `k` hits, best first."""
        with self.library.view(self.where, self.under) as view:
            if view.empty or not query.strip():
                return []
            depth = max(k, self.depth)
            words, near = view.both(query, self.library.encoder.embed_queries([query])[0], depth)
            fused = self._fuse(words, near)
            chosen = diversified(fused, view.vectors, k, self.diversity)
            return view.hits([(row, fused[row], _stages(row, fused, words, near)) for row in chosen])

    def _fuse(self, words: Ranking, near: Ranking) -> Ranking:
        weights = (1 - self.weight, self.weight)
        if self.fusion == "rrf":
            return reciprocal_rank([list(words), list(near)], weights, self.rank_constant)
        return convex([words, near], weights)


def _stages(row: int, fused: Ranking, words: Ranking, near: Ranking) -> dict[str, float]:
    stages = {"hybrid": fused[row]}
    if row in words:
        stages["bm25"] = words[row]
    if row in near:
        stages["dense"] = near[row]
    return stages
