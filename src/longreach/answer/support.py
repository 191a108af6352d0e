"""Which sentences of the passages support an answer, and whether any does.

An answer's sentence is supported where a sentence of a passage (or two neighbours) holds its numbers, and most of the
words that the question did not already give, rare words counting more. This is lexical on purpose: it cannot be
talked into seeing support that is not there, and it needs no model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from longreach.answer import Quote
from longreach.corpus.sentences import sentences, trim
from longreach.types import Document, Passage
from longreach.words import content_words, words

ENOUGH = 0.5
"""The share of a sentence's new words, weighted by rarity, that must stand in the quote."""

PAIR_COST = 0.25
"""How much more of a claim two neighbouring sentences must hold than one alone does, to be quoted in its stead."""


def support(text: str, question: str, passages: Sequence[Passage]) -> tuple[str, list[Quote]]:
    """The sentences of `text` that the passages support, and the quotes that do, best first.

    Without support for any sentence both are empty. A text of which all is supported comes back as it was.
    """
    windows = _windows(passages)
    rarity = _Rarity(window_words for *_, window_words in windows)
    asked = content_words(question)
    kept: list[str] = []
    quotes: dict[tuple[str, int, int], Quote] = {}
    claims = [text[start:end] for start, end in sentences(Document("", text))]
    for claim in claims:
        quote = _best(claim, asked, windows, rarity)
        if quote is None:
            continue
        kept.append(claim)
        key = (quote.passage.chunk.id, quote.start, quote.end)
        if key not in quotes or quotes[key].score < quote.score:
            quotes[key] = quote
    best_first = sorted(quotes.values(), key=lambda quote: -quote.score)
    return (text if len(kept) == len(claims) else "".join(kept)).strip(), best_first


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The sentence of `text` around `[start, end)`, or the sentences where it reaches over several."""
    spans = [span for span in sentences(Document("", text)) if span[1] > start and span[0] < end]
    first, last = (spans[0][0], spans[-1][1]) if spans else (start, end)
    return trim(text, min(first, start), max(last, end))


_Window = tuple[Passage, int, int, float, frozenset[str]]


def _windows(passages: Sequence[Passage]) -> list[_Window]:
    """Each sentence of each passage, and each pair of neighbours, with its words."""
    windows: list[_Window] = []
    for passage in passages:
        spans = [trim(passage.chunk.text, start, end) for start, end in sentences(Document("", passage.chunk.text))]
        spans = [(start, end) for start, end in spans if start < end]
        alone = [(start, end, 0.0) for start, end in spans]
        pairs = [(a[0], b[1], PAIR_COST) for a, b in pairwise(spans)]
        for start, end, cost in alone + pairs:
            windows.append((passage, start, end, cost, frozenset(words(passage.chunk.text[start:end]))))
    return windows


class _Rarity:
    """How much a word counts: log inverse frequency among the windows. One that is in none counts as if it were in one,
    so that a paraphrase costs no more than the rarest word that is there."""

    def __init__(self, windows: Iterable[frozenset[str]]) -> None:
        self.total = 0
        self.counts: Counter[str] = Counter()
        for window in windows:
            self.total += 1
            self.counts.update(window)

    def __call__(self, chosen: Iterable[str]) -> float:
        return sum(math.log1p(self.total / max(1, self.counts[word])) for word in chosen)


def _best(claim: str, asked: set[str], windows: Sequence[_Window], rarity: _Rarity) -> Quote | None:
    said = content_words(claim)
    new = said - asked
    if not new and not said & asked:
        return None
    numbers = {word for word in new if any(c.isdigit() for c in word)}
    needed = new or said
    whole, all_asked = rarity(needed), rarity(asked) or 1.0
    best: tuple[float, float, float, int] | None = None
    found: Quote | None = None
    for passage, start, end, cost, held in windows:
        if not numbers <= held:
            continue
        share = rarity(needed & held) / whole
        if share < ENOUGH:
            continue
        rank = (round(share - cost, 3), rarity(asked & held) / all_asked, passage.hit.score, start - end)
        if best is None or rank > best:
            best, found = rank, Quote(passage, start, end, share)
    return found
