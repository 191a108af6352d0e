"""`names`: who, which, where?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from longreach.evaluate.questions import Made, makers
from longreach.evaluate.questions.blanks import blanked
from longreach.types import Document

_NO_NAME = r"(?!(?:A|An|And|As|At|But|By|For|From|If|In|It|Its|No|Of|On|Or|So|The|This|To|When|With)\b)"
NAME = re.compile(rf"(?<![\w.-]){_NO_NAME}[A-Z][\w'’-]+(?:\s+(?:of\s+|de\s+|van\s+|von\s+)?[A-Z][\w'’-]+)+")


@makers.register("names")
@dataclass(frozen=True)
class Names:
    """Sentences with one name of several capitalised words inside, which is wanted. `least` words that carry meaning
    must be left."""

    least: int = 5
    longest: int = 300

    def make(self, document: Document) -> Iterator[Made]:
        yield from blanked(document, NAME, self.least, self.longest, "names")
