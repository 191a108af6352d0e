"""Chunkers: how a document is cut into spans. One method a file, named as its spec names it."""

from __future__ import annotations

from typing import Protocol

from longreach.registry import Family
from longreach.types import Document, Span


class Chunker(Protocol):
    """Cuts a document into spans that tile or overlap. The text is never changed."""

    def chunk(self, document: Document) -> list[Span]:
        """The spans of `document` in order of their start; none is empty or only white space."""
        ...


chunkers: Family[Chunker] = Family("chunkers", __name__)
