"""The largest units that fit: paragraphs, else lines, else sentences, else words (Rust crate text-splitter)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from longreach.corpus.chunk import chunkers
from longreach.corpus.chunk._pack import check, fit, spans
from longreach.registry import resource
from longreach.tokens import Tokenizer
from longreach.types import Document, Span, TokenCounter


@chunkers.register("recursive")
@dataclass(frozen=True)
class Recursive:
    """Splits at the highest level of line breaks at which the pieces fit into `tokens`, then sentences, words and
    characters, and joins neighbours again. Markdown is split by its own structure. Counts every text many times over:
    several times slower than `sentence`."""

    tokens: int = 128
    overlap: int = 0
    count: TokenCounter = resource()

    def __post_init__(self) -> None:
        check(self.tokens, self.overlap)

    def chunk(self, document: Document) -> list[Span]:
        pieces = self._splitter(document.media_type).chunk_indices(document.text)
        ranges = [(start, start + len(piece)) for start, piece in pieces]
        return spans(document, fit(document.text, ranges, self.tokens, self.count))

    def _splitter(self, media_type: str) -> Any:
        from semantic_text_splitter import MarkdownSplitter, TextSplitter

        splitter = MarkdownSplitter if media_type == "text/markdown" else TextSplitter
        if isinstance(self.count, Tokenizer):
            return splitter.from_huggingface_tokenizer(self.count.backend, self.tokens, self.overlap)
        return splitter.from_callback(self.count, self.tokens, self.overlap)
