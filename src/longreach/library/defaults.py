"""What a library uses where its caller gives nothing, each loaded when first used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longreach.library.library import Library


class LaterEncoder:
    """The library's encoder for a chunker that may want it, loaded only if it does."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library.encoder, name)


class DefaultCount:
    """Counts tokens as the embedded reader does, or, before that is fetched, as the embedded encoder does."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    @cached_property
    def _tokenizer(self) -> Any:
        from longreach.fetch import ensure
        from longreach.model.names import tokenizer_file
        from longreach.tokens import Tokenizer

        file = tokenizer_file("embedded", self._cache) or ensure("encoder", cache=self._cache) / "tokenizer.json"
        return Tokenizer.from_file(file)

    def __call__(self, text: str) -> int:
        return int(self._tokenizer(text))

    def many(self, texts: Sequence[str]) -> list[int]:
        counts: list[int] = self._tokenizer.many(texts)
        return counts


def canonical_chunker(chunker: str) -> str:
    """The spec with every option written out. Raises SpecError."""
    from longreach.corpus.chunk import chunkers
    from longreach.registry import canonical

    return canonical(chunkers, chunkers.make(chunker, count=len, encoder=None))
