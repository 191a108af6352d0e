"""One chunk a section, where sections fit: the document's own headings decide."""

from __future__ import annotations

from dataclasses import dataclass

from longreach.corpus.chunk import chunkers
from longreach.corpus.chunk._pack import check, pack, spans
from longreach.corpus.sentences import Range, ranks, sentences
from longreach.registry import resource
from longreach.tokens import count_many
from longreach.types import Document, Span, TokenCounter


@chunkers.register("sections")
@dataclass(frozen=True)
class Sections:
    """Cuts before every heading. A section over `tokens` is packed by sentences; sections shorter than `shortest` of
    the budget are joined with the next, as long as both fit. A text without headings is chunked as by `sentence`."""

    tokens: int = 128
    shortest: float = 0.25
    language: str = "en"
    count: TokenCounter = resource()

    def __post_init__(self) -> None:
        check(self.tokens)
        if not 0 <= self.shortest <= 1:
            raise ValueError(f"shortest must be between 0 and 1, not {self.shortest}")

    def chunk(self, document: Document) -> list[Span]:
        ranges = sentences(document, self.language)
        packed = pack(
            document.text,
            ranges,
            tokens=self.tokens,
            count=self.count,
            ranks=ranks(document, ranges),
            breaks=self._breaks(document),
        )
        return spans(document, packed)

    def _breaks(self, document: Document) -> list[int]:
        """The offsets of those headings before which a chunk ends."""
        starts = sorted({0, *(anchor.offset for anchor in document.anchors if anchor.kind == "heading")})
        sections: list[Range] = list(zip(starts, [*starts[1:], len(document.text)], strict=True))
        sizes = count_many(self.count, [document.text[start:end] for start, end in sections])
        breaks: list[int] = []
        held = 0
        for (start, _), size in zip(sections, sizes, strict=True):
            if held >= self.shortest * self.tokens or held + size > self.tokens:
                breaks.append(start)
                held = 0
            held += size
        return breaks
