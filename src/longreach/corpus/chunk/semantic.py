"""Cuts where the subject changes: at the largest drops in similarity between neighbouring sentences.

Greg Kamradt, "5 Levels of Text Splitting" (2023), with a cap on the size as in Smith and Troynikov, "Evaluating
Chunking Strategies for Retrieval" (Chroma technical report, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from longreach.corpus.chunk import chunkers
from longreach.corpus.chunk._pack import check, pack, spans
from longreach.corpus.sentences import Range, sentences
from longreach.library.embed import Embedder
from longreach.registry import resource
from longreach.tokens import count_many
from longreach.types import Document, Span, TokenCounter


@chunkers.register("semantic")
@dataclass(frozen=True)
class Semantic:
    """Each sentence is embedded together with `window` neighbours on either side; a chunk ends where the cosine
    similarity to the next falls among the lowest `100 - percentile` percent. A chunk over `tokens` is cut again at its
    own deepest drop until it fits. Needs the encoder: the dearest of the chunkers."""

    tokens: int = 128
    percentile: float = 90.0
    window: int = 1
    language: str = "en"
    count: TokenCounter = resource()
    encoder: Embedder = resource()

    def __post_init__(self) -> None:
        check(self.tokens)
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"percentile must be between 0 and 100, not {self.percentile}")
        if self.window < 0:
            raise ValueError(f"window must be at least 0, not {self.window}")

    def chunk(self, document: Document) -> list[Span]:
        text = document.text
        ranges = _without_blanks(text, sentences(document, self.language))
        if not ranges:
            return []
        around = [
            text[ranges[max(0, at - self.window)][0] : ranges[min(len(ranges) - 1, at + self.window)][1]]
            for at in range(len(ranges))
        ]
        vectors = self.encoder.embed_documents(around)
        drops = 1.0 - np.einsum("nd,nd->n", vectors[:-1], vectors[1:])
        sizes = np.array(count_many(self.count, [text[start:end] for start, end in ranges]))
        cuts = segment(drops, sizes, self.tokens, self.percentile)
        breaks = {ranges[at][0] for at in cuts}
        return spans(document, pack(text, ranges, tokens=self.tokens, count=self.count, breaks=breaks))


def segment(drops: np.ndarray, sizes: np.ndarray, tokens: int, percentile: float) -> list[int]:
    """The sentences that begin a segment, sorted: those after a drop over the percentile, and in segments over `tokens`
    those after their deepest drop.

    `drops[i]` (float, [n - 1]) lies between sentences `i` and `i + 1`; `sizes` (int, [n]) are in tokens.
    """
    steep = np.flatnonzero(drops > np.percentile(drops, percentile)) + 1 if len(drops) else np.array([], dtype=int)
    bounds = [0, *steep.tolist(), len(sizes)]
    total = np.concatenate([[0], np.cumsum(sizes)])
    starts: list[int] = []
    pending = list(pairwise(bounds))
    while pending:
        first, last = pending.pop()
        if last - first > 1 and total[last] - total[first] > tokens:
            cut = first + 1 + int(np.argmax(drops[first : last - 1]))
            pending += [(first, cut), (cut, last)]
        else:
            starts.append(first)
    return sorted(starts)


def _without_blanks(text: str, ranges: list[Range]) -> list[Range]:
    """Ranges of white space are joined to the sentence before them."""
    joined: list[Range] = []
    for start, end in ranges:
        if text[start:end].isspace():
            if joined:
                joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
