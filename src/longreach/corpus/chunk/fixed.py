"""A fixed number of tokens, wherever that cuts: the plain window that others are compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from longreach.corpus.chunk import chunkers
from longreach.corpus.chunk._pack import check, pack, spans
from longreach.registry import resource
from longreach.types import Document, Span, TokenCounter

_WORD = re.compile(r"\S+\s*|\s+")
_RUNS = 32


@chunkers.register("fixed")
@dataclass(frozen=True)
class Fixed:
    """Windows of up to `tokens` tokens, each sharing up to `overlap` with the one before.

    Cuts fall between words, and a window may stay a few words short of `tokens`: short runs are counted at a time.
    """

    tokens: int = 128
    overlap: int = 0
    count: TokenCounter = resource()

    def __post_init__(self) -> None:
        check(self.tokens, self.overlap)

    def chunk(self, document: Document) -> list[Span]:
        words = [match.span() for match in _WORD.finditer(document.text)]
        run = max(1, self.tokens // _RUNS)
        runs = [(words[at][0], words[min(at + run, len(words)) - 1][1]) for at in range(0, len(words), run)]
        packed = pack(document.text, runs, tokens=self.tokens, overlap=self.overlap, count=self.count)
        return spans(document, packed)
