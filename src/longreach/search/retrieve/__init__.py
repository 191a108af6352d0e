"""Retrievers: from a question to the chunks most likely to answer it. One method a file, named as its spec names it."""

from __future__ import annotations

from typing import Protocol

from longreach.registry import Family
from longreach.types import Hit


class Retriever(Protocol):
    """Finds chunks of one library."""

    def retrieve(self, query: str, k: int) -> list[Hit]:
        """At most `k` hits, best first, no chunk twice."""
        ...


retrievers: Family[Retriever] = Family("retrievers", __name__)
