"""How well retrieved chunks cover the spans that answer a question.

Smith and Troynikov, "Evaluating Chunking Strategies for Retrieval" (Chroma technical report, 2024). Ranges are half
open, in characters or tokens alike. A character retrieved twice costs twice and counts once, so overlap has its price.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SpanScores:
    """Shares between 0 and 1: `iou` is what was wanted and found over what was either, `precision` over what was found,
    `recall` over what was wanted."""

    iou: float
    precision: float
    recall: float


def score_spans(retrieved: Sequence[Range], relevant: Sequence[Range]) -> SpanScores:
    """The scores of `retrieved` ranges, which may overlap, against the `relevant` ones; 0 where there is nothing."""
    wanted = merge(relevant)
    found = intersection(merge(retrieved), wanted)
    cost = sum(end - start for start, end in retrieved)
    total = length(wanted)
    return SpanScores(
        iou=_ratio(found, cost + total - found), precision=_ratio(found, cost), recall=_ratio(found, total)
    )


def precision_omega(chunks: Iterable[Range], relevant: Sequence[Range]) -> float:
    """The precision if exactly those chunks were retrieved that touch a relevant range: the best that a retriever with
    full recall can do with this chunking."""
    wanted = merge(relevant)
    touching = [chunk for chunk in chunks if intersection([chunk], wanted)]
    return score_spans(touching, relevant).precision


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same characters as disjoint ranges in order."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def intersection(first: Sequence[Range], second: Sequence[Range]) -> int:
    """How many characters two sets of disjoint ranges in order share."""
    shared = i = j = 0
    while i < len(first) and j < len(second):
        shared += max(0, min(first[i][1], second[j][1]) - max(first[i][0], second[j][0]))
        if first[i][1] <= second[j][1]:
            i += 1
        else:
            j += 1
    return shared


def length(ranges: Iterable[Range]) -> int:
    """The characters in disjoint ranges."""
    return sum(end - start for start, end in ranges)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
