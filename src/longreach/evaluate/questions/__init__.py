"""Questions about one's own documents, with the span that answers each; a method of making them is a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from longreach.registry import Family
from longreach.types import Document


@dataclass(frozen=True, slots=True)
class Made:
    """A question whose `answer` stands in `document.text[start:end]`, the span that tells it. `kind` is the name of its
    maker."""

    question: str
    answer: str
    document: str
    start: int
    end: int
    kind: str


class Maker(Protocol):
    """Makes questions from a document, in the order of its text; the filter comes after it."""

    def make(self, document: Document) -> Iterator[Made]: ...


makers: Family[Maker] = Family("makers", __name__)
