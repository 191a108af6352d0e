"""A part of a document as it is shown: its pages, its headings, the passage that was read and the words cited."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from longreach.types import Document

ROOM = 6_000
"""Characters that are shown before and behind the place in question."""
LINE = 2_000
"""Characters by which a part is made longer so that it begins and ends with a line."""


@dataclass(frozen=True, slots=True)
class Part:
    """`[start, end)` of a document's text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text that looks alike: `kind` says whether it is cited, was read, neither, or is the number of a page,
    which is no part of the document's text; `heading` whether it is a line that heads a section."""

    kind: Literal["plain", "passage", "quote", "page"]
    text: str
    heading: bool = False


def around(text: str, start: int, end: int, before: int = ROOM, behind: int = ROOM) -> Part:
    """`[start, end)` with so many characters more on both sides, and whole lines where they are not too long."""
    first, last = max(0, start - before), min(len(text), end + behind)
    if first:
        line = text.rfind("\n", max(0, first - LINE), first)
        first = line + 1 if line >= 0 else first
    if last < len(text):
        line = text.find("\n", last, last + LINE)
        last = line + 1 if line >= 0 else last
    return Part(first, last)


def cut(document: Document, shown: Part, quote: Part, passage: Part) -> list[Piece]:
    """The pieces of `shown`, in order. Those that are no pages, joined, are its text."""
    pages = {a.offset: a.label for a in document.anchors if a.kind == "page" and shown.start <= a.offset < shown.end}
    headings = [_line(document.text, a.offset) for a in document.anchors if a.kind == "heading"]
    headings = [line for line in headings if line.start < shown.end and shown.start < line.end]
    edges = {shown.start, shown.end, *pages}
    for part in (quote, passage, *headings):
        edges |= {part.start, part.end}
    places = sorted(edge for edge in edges if shown.start <= edge <= shown.end)
    starts = sorted(line.start for line in headings)
    ends = sorted(line.end for line in headings)
    pieces = []
    for start, end in pairwise(places):
        if start in pages:
            pieces.append(Piece("page", pages[start]))
        kind: Literal["plain", "passage", "quote"] = "plain"
        if quote.start <= start < quote.end:
            kind = "quote"
        elif passage.start <= start < passage.end:
            kind = "passage"
        heading = bisect.bisect_right(starts, start) > bisect.bisect_right(ends, start)
        pieces.append(Piece(kind, document.text[start:end], heading))
    return pieces


def _line(text: str, offset: int) -> Part:
    """The line that begins at `offset`, without its end."""
    end = text.find("\n", offset)
    return Part(offset, len(text) if end < 0 else end)
