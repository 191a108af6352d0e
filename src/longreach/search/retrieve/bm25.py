"""`bm25`: the words of the question."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.library import Library
from longreach.library.filters import Under, Where
from longreach.registry import resource
from longreach.search.retrieve import retrievers
from longreach.types import Hit


@retrievers.register("bm25")
@dataclass
class BM25:
    """Okapi BM25 with k1 = 1.2 and b = 0.75 over English stems, stop words and accents left out; a question may hold
    any characters. Robertson & Zaragoza 2009, "The probabilistic relevance framework: BM25 and beyond"."""

    library: Library = resource()
    where: Where | None = resource()
    under: Under = resource()

    def retrieve(self, query: str, k: int) -> list[Hit]:
        """At most `k` hits that share a word with `query`, best first."""
        return self.library.lexical(query, k, self.where, self.under)
