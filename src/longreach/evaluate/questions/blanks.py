"""What makers share that leave a part of a sentence out and ask for it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from longreach.corpus.sentences import sentences, trim
from longreach.evaluate.questions import Made
from longreach.types import Document
from longreach.words import content_words

BLANK = "____"
ASKED = "Fill in the blank: "
_MARKER = re.compile(r"(?:[-*+•]|\d{1,3}[.)])\s+")
"""What an item of a list begins with: no part of what it says."""


def blanked(document: Document, part: re.Pattern[str], least: int, longest: int, kind: str) -> Iterator[Made]:
    """For each sentence of at least `least` words that carry meaning and at most `longest` characters, in which `part`
    is found once: the sentence without it, and it as the answer."""
    for start, end in sentences(document):
        marker = _MARKER.match(document.text, trim(document.text, start, end)[0])
        first, last = trim(document.text, marker.end() if marker else start, end)
        sentence = document.text[first:last]
        if len(sentence) > longest or not sentence.endswith((".", "!")):
            continue
        found = [match for match in part.finditer(sentence) if match.start() > 0]
        if len(found) != 1:
            continue
        rest = " ".join(f"{sentence[: found[0].start()]}{BLANK}{sentence[found[0].end() :]}".split())
        if len(content_words(rest)) >= least:
            yield Made(f"{ASKED}{rest}", found[0][0], document.id, first, last, kind)
