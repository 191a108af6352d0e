"""`numbers`: how many, how much, when?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longreach.evaluate.questions import Made, makers
from longreach.evaluate.questions.blanks import blanked
from longreach.types import Document

NUMBER = re.compile(r"(?<![\w.,/-])\d(?:[\d.,]*\d)?(?:\s?%)?(?![\w/-]|[.,]\d)")


@makers.register("numbers")
@dataclass(frozen=True)
class Numbers:
    """Sentences with one number, which is wanted. `least` words that carry meaning must be left."""

    least: int = 5
    longest: int = 300

    def make(self, document: Document) -> Iterator[Made]:
        yield from blanked(document, NUMBER, self.least, self.longest, "numbers")
