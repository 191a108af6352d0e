"""What an answer cites against what it should have cited. After ALCE (Gao et al. 2023, arXiv 2305.14627), with the true
sources known in place of a model that judges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from longreach.evaluate.metrics.spans import Range, intersection, length, merge


@dataclass(frozen=True, slots=True)
class CitationScores:
    """Shares between 0 and 1: `precision` of what was cited, `recall` of what should have been."""

    precision: float
    recall: float


def score_citations(cited: Collection[str], gold: Collection[str]) -> CitationScores:
    """Cited sources against the gold ones, each counted once. No citation has precision 1 only where none was due."""
    named, due = set(cited), set(gold)
    right = len(named & due)
    return CitationScores(
        precision=right / len(named) if named else float(not due), recall=right / len(due) if due else 1.0
    )


def score_quotes(quotes: Mapping[str, Sequence[Range]], gold: Mapping[str, Sequence[Range]]) -> CitationScores:
    """Quoted spans against the spans that support the answer, both by document, counted in characters."""
    said = {document: merge(ranges) for document, ranges in quotes.items()}
    due = {document: merge(ranges) for document, ranges in gold.items()}
    shared = sum(intersection(ranges, due.get(document, [])) for document, ranges in said.items())
    quoted, wanted = (sum(length(ranges) for ranges in side.values()) for side in (said, due))
    return CitationScores(
        precision=shared / quoted if quoted else float(not wanted), recall=shared / wanted if wanted else 1.0
    )
