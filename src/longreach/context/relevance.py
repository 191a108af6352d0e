"""How much a hit has to do with the question: a hit that has too little is not read, and where none has enough, the
documents do not tell."""

from __future__ import annotations

from collections.abc import Sequence

from longreach.types import Hit
from longreach.words import content_words, words

WORDS = 0.4
"""The weight of the question's words beside the similarity of meaning."""
UNKNOWN_SIMILARITY = 0.55
"""What hits count as whose similarity the retriever does not tell: usual for one that holds the answer."""


def relevant(question: str, hits: Sequence[Hit], least: float) -> list[Hit]:
    """Those of `hits` whose relevance is at least `least`, in their order."""
    return [hit for hit, worth in zip(hits, relevance(question, hits), strict=True) if worth >= least]


def relevance(question: str, hits: Sequence[Hit]) -> list[float]:
    """How much each of `hits` has to do with the question.

    It is `0.6 cos + 0.4 share`: the cosine of the question's vector with the hit's, and the share of the
    question's content words that stand in the hit. Either alone misjudges: cosines are low all over a technical text,
    and a passage may hold the words of a question and be about something else.
    """
    asked = content_words(question)
    return [
        (1 - WORDS) * cosine + WORDS * _share(asked, hit.text)
        for hit, cosine in zip(hits, similarities(hits), strict=True)
    ]


def similarities(hits: Sequence[Hit]) -> list[float]:
    """The cosine of each hit's vector with the question's, estimated where the retriever does not tell it."""
    told = [hit.scores["dense"] for hit in hits if "dense" in hit.scores]
    # A retriever that tells some tells the highest: the others are at most as similar as the least of these.
    rest = min(told, default=UNKNOWN_SIMILARITY)
    return [hit.scores.get("dense", rest) for hit in hits]


def _share(asked: set[str], text: str) -> float:
    return len(asked.intersection(words(text))) / len(asked) if asked else 1.0
