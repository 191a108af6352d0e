"""`names`: who, which, where?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longreach.evaluate.questions import Made, makers
from longreach.evaluate.questions.blanks import blanked
from longreach.types import Document

NAME = re.compile(r"(?<![\w.-])[A-Z][\w'’-]+(?:\s+(?:of\s+|de\s+|van\s+|von\s+)?[A-Z][\w'’-]+)+")


@makers.register("names")
@dataclass(frozen=True)
class Names:
    """Sentences with one name of several capitalised words inside, which is wanted. `least` words that carry meaning
    must be left."""

    least: int = 5
    longest: int = 300

    def make(self, document: Document) -> Iterator[Made]:
        yield from blanked(document, NAME, self.least, self.longest, "names")
