"""What a library takes on the disk, by what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longreach.library import Library
from longreach.serve.keys import Key
from longreach.serve.service import Service

LOOKED_AT = 500
"""Chunks for which it is looked up whether their KV is kept."""
FLOAT = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes: of the text with its terms and what finds them, of vectors, and about how many of KV that is kept of the
    library's chunks for one tenant; None where that cannot be known."""

    text: int
    vectors: int
    kv: int | None


def sizes(service: Service, library: Library, key: Key) -> Sizes:
    """The sizes of `library`, its KV as `key`'s tenant finds it."""
    stats = library.stats()
    vectors = min(stats.bytes, stats.chunks * stats.dim * FLOAT)
    return Sizes(stats.bytes - vectors, vectors, _kept(service, library, key))


def _kept(service: Service, library: Library, key: Key) -> int | None:
    """By the mean size of what the store holds: passages are of about one size. Of a large library, by some chunks."""
    engine: Any = service.engine if service.state == "ready" else None
    if not hasattr(engine, "passages"):
        return None
    kept = engine.passages
    if kept is None:
        return 0
    from longreach.engine.requests import split

    with library.view() as view:
        if view.empty:
            return 0
        texts = view.table.search().select(["text"]).limit(LOOKED_AT).to_arrow()["text"].to_pylist()
        chunks = view.chunks
    stored = kept.store.stats().disk
    if not stored.entries or not texts:
        return 0
    overview = service.reader(library, service.errand(key, None))
    opening, passages = split(engine.parts(overview.answerer.prompt("?", texts, engine)))
    share = sum(kept.kept(opening, passages, key.tenant)) / len(texts)
    mean = stored.bytes / stored.entries
    kept_bytes: int = round(share * chunks * mean)
    return kept_bytes
