"""Where a text may be cut without breaking a sentence, a list item, a heading or a line of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from longreach.corpus.formats import language_of
from longreach.types import Document

Range = tuple[int, int]

_ODD_SPACES = dict.fromkeys(map(ord, "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"), " ") | dict.fromkeys(
    range(0x2000, 0x200B), " "
)
_LINE = re.compile(r"[^\n]*\n|[^\n]+\Z")
_STARTS = re.compile(
    r"^(?=[ \t]*(?:[-*+•‣◦▪–]|\(?[0-9]{1,3}[.)]|\(?[a-z][.)])[ \t]|#{1,6}[ \t]|\||```|~~~| {4}|\t)", re.MULTILINE
)
_ENDS = re.compile(r"^(?:#{1,6}[ \t].*|```.*|~~~.*|\|.*)\n|^[ \t\r]*\n(?=[ \t]*\S)", re.MULTILINE)
_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n?", re.MULTILINE)


def sentences(document: Document, language: str = "en") -> list[Range]:
    """Ranges that tile the text: sentences, headings, list items, table rows; lines in source code.

    `language` (ISO 639-1) says which abbreviations end no sentence.
    """
    text = document.text
    if language_of(document.media_type):
        return [match.span() for match in _LINE.finditer(text)]
    cuts = {0, len(text), *_sentence_ends(text, language)}
    cuts.update(match.start() for match in _STARTS.finditer(text))
    cuts.update(match.end() for match in _ENDS.finditer(text))
    for start, end in _fenced(text):
        cuts.update(match.start() for match in _LINE.finditer(text, start, end))
    cuts.update(anchor.offset for anchor in document.anchors)
    ordered = sorted(cuts)
    return list(pairwise(ordered))


def trim(text: str, start: int, end: int) -> Range:
    """The range without the white space at its ends; empty where there is nothing else."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _fenced(text: str) -> Iterator[Range]:
    """Blocks of fenced code, their fences included; one that is left open is none."""
    opening: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opening is None:
            opening = fence
        elif fence[0].strip() == fence[1] and fence[1].startswith(opening[1]):
            yield opening.start(), fence.end()
            opening = None


def _sentence_ends(text: str, language: str) -> Iterator[int]:
    import sentencex

    # Its rules for initials fail on a wide space before a full stop; a plain one of the same length changes no offset.
    plain = text if text.isascii() else text.translate(_ODD_SPACES)
    at = 0
    while at < len(plain):
        end = _block_end(plain, at)
        for sentence in sentencex.segment(language, plain[at:end]):
            at += len(sentence)
            yield at


def _block_end(text: str, start: int) -> int:
    """Where a block that begins at `start` may end: after a blank line, else a line, else a word, else anywhere."""
    limit = start + _BLOCK
    if limit >= len(text):
        return len(text)
    ends = (text.rfind(mark, start, limit) + len(mark) for mark in ("\n\n", "\n", " "))
    return next((end for end in ends if end > start + _BLOCK // 2), limit)


_BLOCK = 10_000
"""Characters that are split into sentences at a time: the time it takes grows with the square of unpaired quotes."""


def ranks(document: Document, ranges: list[Range]) -> list[int]:
    """How good a place for a cut the start of each range is: 3 before a heading, 2 after a blank line, 1 at a line's
    start, 0 within a line, -1 right after a heading."""
    text = document.text
    headings = {anchor.offset for anchor in document.anchors if anchor.kind == "heading"}
    result: list[int] = []
    after_heading = False
    for start, end in ranges:
        if start in headings:
            result.append(3)
        elif after_heading:
            result.append(-1)
        else:
            before = text[max(0, start - 8) : start]
            result.append(2 if _BLANK.search(before) else int("\n" in before[-2:]))
        after_heading = start in headings or (after_heading and text[start:end].isspace())
    return result


_BLANK = re.compile(r"\n[ \t\r]*\n\s*\Z")
