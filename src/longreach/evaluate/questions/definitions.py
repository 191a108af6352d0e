"""`definitions`: what is this?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longreach.corpus.sentences import sentences, trim
from longreach.evaluate.questions import Made, makers
from longreach.types import Document

_DEFINED = re.compile(
    r"(?P<article>(?:An?|The)\s+)?(?P<subject>[\w`*'’()-]+(?:\s+[\w`*'’()-]+){0,4})\s+"
    r"(?P<verb>is|are|was|were|means|refers\s+to)\s+(?P<what>(?:an?|the|one\s+of)\s+[^;:?!]{15,})"
)
_NO_SUBJECT = frozenset(
    "he her here his how i if in it its my no not on our she so some such that their there these they this those to we"
    " what when where which who why you your".split()
)


@makers.register("definitions")
@dataclass(frozen=True)
class Definitions:
    """Sentences such as "X is a …" of at most `longest` characters: what X is, is wanted."""

    longest: int = 300

    def make(self, document: Document) -> Iterator[Made]:
        for start, end in sentences(document):
            first, last = trim(document.text, start, end)
            sentence = document.text[first:last]
            found = _DEFINED.match(sentence)
            if found is None or len(sentence) > self.longest:
                continue
            words = found["subject"].casefold().split()
            if any(word in _NO_SUBJECT for word in words) or not any(word[0].isalpha() for word in words):
                continue
            subject = " ".join(f"{(found['article'] or '').lower()}{found['subject']}".replace("*", "").split())
            verb = found["verb"] if found["verb"] in ("is", "are", "was", "were") else "is"
            answer = " ".join(found["what"].rstrip(" .").split())
            yield Made(f"What {verb} {subject}?", answer, document.id, first, last, "definitions")
