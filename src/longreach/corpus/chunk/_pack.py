"""Packing small ranges of a text into chunks of a token budget: linear, and each piece is counted once.

Token counts of parts do not add up to the count of the whole, so chunks are filled by the sum and then counted
themselves; the few that turn out too large are cut again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from longreach.corpus.sentences import Range, trim
from longreach.tokens import count_many
from longreach.types import Document, Span, TokenCounter

_WIDEST = 16
"""Characters that count as a token at least: some tokenizers make one token of a word of any length."""
_FINER = (re.compile(r"[^\n]*\n|[^\n]+"), re.compile(r"[^,;:.!?]*(?:[,;:.!?]+\s*|\Z)"), re.compile(r"\s*\S+|\s+"))
"""What a range that is over the budget is cut into: lines, clauses, words."""
_FILL = 0.25
"""A chunk ends early, at a better place for a cut, if at least this share of its budget is filled there."""


def pack(
    text: str,
    ranges: Sequence[Range],
    *,
    tokens: int,
    count: TokenCounter,
    overlap: int = 0,
    ranks: Sequence[int] = (),
    breaks: Collection[int] = (),
) -> list[Range]:
    """Join neighbouring `ranges` into chunks of at most `tokens` tokens, white space at their ends left out.

    A chunk repeats at most `overlap` tokens of the one before. `ranks` tells how good a cut before each range is (see
    `corpus.sentences.ranks`); a chunk always ends at the offsets in `breaks`.
    """
    parts = _cut_to_size(text, ranges, tokens, count, ranks)
    weights = [part.weight for part in parts]
    grades = [part.rank for part in parts]
    closed = set(breaks)
    chunks: list[Range] = []
    first = 0
    while first < len(parts):
        last, total = first + 1, weights[first]
        while last < len(parts) and total + weights[last] <= tokens and parts[last].start not in closed:
            total += weights[last]
            last += 1
        ended = last == len(parts) or parts[last].start in closed
        if not ended and ranks:
            last = _best_cut(weights, grades, first, last, tokens)
        chunks.append((parts[first].start, parts[last - 1].end))
        following = last
        if overlap and not ended:
            shared = 0
            while (
                following - 1 > first
                and shared + weights[following - 1] <= overlap
                and shared + weights[following - 1] + weights[last] <= tokens
            ):
                following -= 1
                shared += weights[following]
        first = following
    return fit(text, chunks, tokens, count)


def fit(text: str, chunks: Iterable[Range], tokens: int, count: TokenCounter) -> list[Range]:
    """The chunks without white space at their ends and without empty ones, those over the budget cut in two until they
    fit or are one character long."""
    trimmed = [chunk for chunk in (trim(text, *chunk) for chunk in chunks) if chunk[0] < chunk[1]]
    counts = count_many(count, [text[start:end] for start, end in trimmed])
    fitting: list[Range] = []
    for chunk, size in zip(trimmed, counts, strict=True):
        fits = size <= tokens or chunk[1] - chunk[0] == 1
        for piece in [chunk] if fits else fit(text, _halves(text, *chunk), tokens, count):
            if fitting and fitting[-1][0] == piece[0]:
                fitting.pop()  # overlaps may leave a chunk that its neighbour holds in full
            if not fitting or fitting[-1][1] < piece[1]:
                fitting.append(piece)
    return fitting


def spans(document: Document, ranges: Iterable[Range]) -> list[Span]:
    """Ranges as spans, each with the headings above its first character."""
    return [Span(start, end, document.place(start).section) for start, end in ranges]


def check(tokens: int, overlap: int = 0) -> None:
    """Raises ValueError when no chunk could be made with these sizes."""
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, not {tokens}")
    if not 0 <= overlap < tokens:
        raise ValueError(f"overlap must be at least 0 and less than tokens, not {overlap}")


class _Part:
    __slots__ = ("end", "rank", "start", "weight")

    def __init__(self, start: int, end: int, weight: int, rank: int) -> None:
        self.start, self.end, self.weight, self.rank = start, end, weight, rank


def _cut_to_size(
    text: str, ranges: Sequence[Range], tokens: int, count: TokenCounter, ranks: Sequence[int]
) -> list[_Part]:
    """Each range with its weight in tokens, cut finer and finer where it is over the budget."""
    grades = ranks or [0] * len(ranges)
    parts: list[_Part] = []
    for (start, end), weight, rank in zip(ranges, _weigh(text, ranges, tokens, count), grades, strict=True):
        if weight <= tokens:
            parts.append(_Part(start, end, weight, rank))
        else:
            finer = _finer(text, start, end, tokens, count, 0)
            parts += [_Part(*piece, rank if not index else 0) for index, piece in enumerate(finer)]
    return parts


def _finer(text: str, start: int, end: int, tokens: int, count: TokenCounter, level: int) -> list[tuple[int, int, int]]:
    if level == len(_FINER):
        width = max(1, min(end - start - 1, tokens))
        pieces = [(at, min(at + width, end)) for at in range(start, end, width)]
        return [(*piece, weight) for piece, weight in zip(pieces, _weigh(text, pieces, tokens, count), strict=True)]
    pieces = [match.span() for match in _FINER[level].finditer(text, start, end) if match.end() > match.start()]
    result: list[tuple[int, int, int]] = []
    for piece, weight in zip(pieces, _weigh(text, pieces, tokens, count), strict=True):
        if weight <= tokens or piece[1] - piece[0] == 1:
            result.append((*piece, min(weight, tokens)))
        else:
            result += _finer(text, *piece, tokens, count, level + 1)
    return result


def _weigh(text: str, ranges: Sequence[Range], tokens: int, count: TokenCounter) -> list[int]:
    """Tokens of each range, or more for one so wide that it is not worth counting."""
    wide = _WIDEST * tokens
    pieces = [_with_lead(text, start, end) if end - start <= wide else "" for start, end in ranges]
    sizes = count_many(count, pieces)
    return [max(size, -(-(end - start) // _WIDEST)) for (start, end), size in zip(ranges, sizes, strict=True)]


def _with_lead(text: str, start: int, end: int) -> str:
    """The text of a range with the spaces before it and without those at its end: tokenizers join a space to the word
    that follows, so that counts of such pieces add up."""
    while start > 0 and text[start - 1] == " ":
        start -= 1
    return text[start:end].rstrip(" ")


def _best_cut(weights: Sequence[int], grades: Sequence[int], first: int, last: int, tokens: int) -> int:
    """Of the places for a cut in `(first, last]`, the last of the best ones that leave the chunk well filled."""
    best, filled = last, sum(weights[first:last])
    for place in range(last - 1, first, -1):
        filled -= weights[place]
        if filled < _FILL * tokens:
            break
        if grades[place] > grades[best]:
            best = place
    return best


def _halves(text: str, start: int, end: int) -> tuple[Range, Range]:
    """Two ranges that tile this one, parted at the white space nearest to its middle if there is any near."""
    middle = (start + end) // 2
    reach = (end - start) // 4
    after = next((at for at in range(middle, middle + reach) if text[at].isspace()), None)
    before = next((at for at in range(middle - 1, middle - reach, -1) if text[at].isspace()), None)
    near = [at for at in (after, before) if at is not None]
    cut = min(near, key=lambda at: abs(at - middle)) if near else middle
    return (start, max(cut, start + 1)), (max(cut, start + 1), end)
