"""`sections`: what stands under a heading?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from longreach.corpus.sentences import sentences, trim
from longreach.evaluate.questions import Made, makers
from longreach.types import Document
from longreach.words import content_words


@makers.register("sections")
@dataclass(frozen=True)
class Sections:
    """For each heading of at least `words` words that carry meaning: the first sentence below it is wanted, of at most
    `longest` characters."""

    words: int = 2
    longest: int = 300

    def make(self, document: Document) -> Iterator[Made]:
        text = document.text
        offsets = {anchor.offset for anchor in document.anchors if anchor.kind == "heading"}
        labels = {anchor.offset: anchor.label.strip() for anchor in document.anchors if anchor.kind == "heading"}
        heading = ""
        for start, end in sentences(document):
            if start in offsets:
                heading = labels[start]
                continue
            first, last = trim(text, start, end)
            if not heading or first == last:
                continue
            told = text[first:last]
            if (
                len(content_words(heading)) >= self.words
                and 20 <= len(told) <= self.longest
                and told[0].isalpha()
                and told[-1] != ":"
            ):
                asked = heading.rstrip(" .:")
                question = asked if asked.endswith("?") else f"What do the documents say about: {asked}?"
                yield Made(question, told, document.id, first, last, "sections")
            heading = ""
