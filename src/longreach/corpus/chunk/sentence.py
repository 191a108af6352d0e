"""Whole sentences, packed to a token budget."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.corpus.chunk import chunkers
from longreach.corpus.chunk._pack import check, pack, spans
from longreach.corpus.sentences import ranks, sentences
from longreach.registry import resource
from longreach.types import Document, Span, TokenCounter


@chunkers.register("sentence")
@dataclass(frozen=True)
class Sentence:
    """Packs sentences, list items and table rows until the next would not fit into `tokens`.

    Where a chunk is at least half full, it ends before a heading or paragraph rather than at a later sentence. A new
    chunk repeats as many whole sentences as fit into `overlap`. Source code is packed by lines.
    """

    tokens: int = 128
    overlap: int = 0
    language: str = "en"
    """ISO 639-1; decides which abbreviations end no sentence."""
    count: TokenCounter = resource()

    def __post_init__(self) -> None:
        check(self.tokens, self.overlap)

    def chunk(self, document: Document) -> list[Span]:
        ranges = sentences(document, self.language)
        packed = pack(
            document.text,
            ranges,
            tokens=self.tokens,
            overlap=self.overlap,
            count=self.count,
            ranks=ranks(document, ranges),
        )
        return spans(document, packed)
