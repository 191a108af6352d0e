"""Questions that lean on what was said before: "And how heavy is it?" For English.

Such a question is searched for together with the last one that stood by itself. Whether one leans is told by its words
alone: a pronoun in its first sentence, a beginning such as "and" or "what about", or hardly a word of content.
`bench/follow.py` measures it on talks made by hand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from longreach.words import content_words

_POINTS_BACK = re.compile(
    r"\b(it|its|they|them|their|theirs|he|him|his|she|her|hers|this|these|those|there|ones?|others?|same)\b"
    r"|\b(of|about|for|with|by|on|in|after|before|from|like|than|is|was|does|did) that\b|\bthat[?.!]*$",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r"\s*(and|but|or|so|then|also|what about|how about|why|how so|how come|what else|who else)\b", re.I
)
_EXISTS = re.compile(r"\b(is|are|was|were|be|been|will|can|could) there\b|\bthere (is|are|was|were)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s")


LONGEST = 500
"""Characters of an earlier question that are searched for: its end, since what comes before may be a pasted text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was asked before, and what was answered."""

    question: str
    answer: str = ""


def leans(question: str) -> bool:
    """Whether a question cannot be understood without what was said before."""
    first = _EXISTS.sub(" ", _SENTENCE.split(question.strip())[0])
    return bool(_GOES_ON.match(first) or _POINTS_BACK.search(first)) or len(content_words(question)) < 2


def followed(question: str, before: Sequence[Asked]) -> str:
    """What to search for to answer `question`: itself, or, where it leans on what was said `before`, the last question
    that did not and itself."""
    if not leans(question):
        return question
    stood = next((turn for turn in reversed(before) if not leans(turn.question)), None)
    return question if stood is None else f"{stood.question[-LONGEST:]} {question}"
