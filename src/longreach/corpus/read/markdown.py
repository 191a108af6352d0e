"""Markdown: the file's own text, verbatim; its headings become anchors."""

from __future__ import annotations

import re

from longreach.corpus.read import Extract
from longreach.corpus.read.text import decode
from longreach.types import Anchor

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NOT_PROSE = re.compile(r" {4}|\t| {0,3}(?:[-*+>|]|\d+[.)][ \t]|(?:[-*_][ \t]*){3,}$)")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_MARKS = re.compile(r"(?<!\\)(?:`+|\*+|(?<!\w)_+|_+(?!\w))")


def read(data: bytes) -> Extract:
    """The text of a Markdown file with its headings. Raises DocumentError for binary data."""
    text = decode(data)
    anchors = headings(text)
    title = next((anchor.label for anchor in anchors if anchor.level == 1), "")
    return Extract(text, anchors, title)


def headings(text: str) -> list[Anchor]:
    """ATX and setext headings, not those in fenced code, front matter or indented code."""
    anchors: list[Anchor] = []
    fence = ""
    paragraph: tuple[int, list[str]] | None = None
    """Where the paragraph that runs up to this line begins, and its lines: a setext underline makes it a heading."""
    offset = 0
    lines = text.splitlines(keepends=True) if _only_newlines(text) else re.split(r"(?<=\n)", text)
    skip_to = _front_matter(lines)
    for index, raw in enumerate(lines):
        start, offset = offset, offset + len(raw)
        line = raw.rstrip("\r\n")
        opened = _FENCE.match(line)
        if index < skip_to:
            continue
        if fence:
            if opened and opened[1].startswith(fence) and not line[opened.end() :].strip():
                fence = ""
        elif opened and not ("`" in opened[1] and "`" in line[opened.end() :]):
            fence, paragraph = opened[1], None
        elif atx := _ATX.match(line):
            paragraph = None
            if label := _label(_closed(line[atx.end() :])):
                anchors.append(Anchor("heading", start + line.index("#"), label, len(atx[1])))
        elif paragraph and (underline := _UNDERLINE.match(line)):
            begin, title = paragraph
            if len(title) <= _HEADING_LINES:
                anchors.append(Anchor("heading", begin, _label(" ".join(title)), 1 if underline[1][0] == "=" else 2))
            paragraph = None
        elif not line.strip() or (_NOT_PROSE.match(line) and not paragraph):
            paragraph = None
        elif paragraph:
            if _NOT_PROSE.match(line):
                paragraph = None
            else:
                paragraph[1].append(line.strip())
        else:
            paragraph = (start + len(line) - len(line.lstrip()), [line.strip()])
    return anchors


def _only_newlines(text: str) -> bool:
    """Whether `splitlines` would break at line feeds alone."""
    return text.isascii() and not any(mark in text for mark in "\r\v\f\x1c\x1d\x1e")


def _front_matter(lines: list[str]) -> int:
    """The index of the first line after a YAML block at the head of the file, 0 where there is none."""
    if not lines or lines[0].rstrip() != "---":
        return 0
    return next((index + 1 for index, line in enumerate(lines[1:200], 1) if line.rstrip() in ("---", "...")), 0)


_LONGEST = 500
_HEADING_LINES = 5
"""A longer paragraph over a line of dashes is a paragraph, whatever the dashes were meant to be."""


def _closed(title: str) -> str:
    """What an ATX heading says: without the hashes that may close it."""
    title = title.strip()
    bare = title.rstrip("#")
    return bare if not bare or bare[-1] in " \t" else title


def _label(title: str) -> str:
    """A heading as people read it: no emphasis, no code ticks, links by their text."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", _MARKS.sub("", _LINK.sub(r"\1", title[:_LONGEST]))).strip()
