"""Search: from a question to hits. A retriever finds chunks, a reranker may order them anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longreach.errors import InputError
from longreach.search.rerank import rerankers
from longreach.search.retrieve import retrievers
from longreach.types import Hit

if TYPE_CHECKING:
    from longreach.library import Library
    from longreach.library.filters import Under, Where


def search(
    library: Library,
    query: str,
    k: int = 10,
    *,
    retriever: str = "hybrid",
    reranker: str = "none",
    where: Where | None = None,
    under: Under = None,
) -> list[Hit]:
    """The `k` chunks of `library` that best match `query`, best first; `retriever` and `reranker` are specs.

    `where` filters by the documents' metadata, `under` by their source (`longreach.library.filters`). A reranker gets
    as many hits as its `depth` asks for. Raises InputError for an empty question or `k` below 1, SpecError.
    """
    if not query.strip():
        raise InputError("the question is empty: ask something")
    if k < 1:
        raise InputError(f"k is {k}: ask for at least one hit")
    second = rerankers.make(reranker)
    first = retrievers.make(retriever, library=library, where=where, under=under)
    wanted = max(k, int(getattr(second, "depth", k)))
    return second.rerank(query, first.retrieve(query, wanted))[:k]


__all__ = ["rerankers", "retrievers", "search"]
