"""Keeping within a token budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from longreach.types import Budget, Hit

FRAME_TOKENS = 8
"""What a passage costs beside its text: its number and the blank lines around it."""


def fit(hits: Iterable[Hit], budget: Budget) -> list[Hit]:
    """The hits, best first, that together stay within the budget.

    A hit that overlaps a better one of the same document is left out; one too large for what is left is passed over,
    so that a smaller one behind it may still go in. Should the best hit alone exceed the budget, it is cut at its end
    to fit.
    """
    chosen: list[Hit] = []
    left = budget.tokens
    for hit in hits:
        if any(_covers(better, hit) for better in chosen):
            continue
        cost = budget.count(hit.text) + FRAME_TOKENS
        if cost <= left:
            chosen.append(hit)
            left -= cost
        elif not chosen and (cut := _cut(hit, budget)) is not None:
            return [cut]
    return chosen


def _covers(better: Hit, hit: Hit) -> bool:
    """Whether more than half of `hit` stands in `better` already."""
    a, b = better.chunk, hit.chunk
    if a.document_id != b.document_id:
        return False
    return 2 * (min(a.end, b.end) - max(a.start, b.start)) > b.end - b.start


def _cut(hit: Hit, budget: Budget) -> Hit | None:
    """The longest beginning of `hit` that fits, cut at white space; None if not even a word does."""
    text = hit.text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if budget.count(text[:middle]) + FRAME_TOKENS <= budget.tokens:
            low = middle
        else:
            high = middle - 1
    end = text.rfind(" ", 0, low + 1)
    end = end if end > 0 else low
    if not text[:end].strip():
        return None
    chunk = replace(hit.chunk, end=hit.chunk.start + end, text=text[:end], tokens=budget.count(text[:end]))
    return replace(hit, chunk=chunk)
