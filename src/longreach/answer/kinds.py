"""The kind of thing that a question asks for and that a span is: a name, a number, a date. Rough, and for English."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from longreach.words import content_words

Kind: TypeAlias = Literal["name", "number", "date", "other"]

_HOW_MANY = re.compile(r"\bhow (many|much|long|old|far|tall|big|often|fast)\b|\bwhat (percentage|number|age)\b")
_WHEN = re.compile(r"\bwhen\b|\b(what|which) (year|date|day|month|time)\b")
_WHO = re.compile(r"\b(who|whose|whom)\b")
_WHERE = re.compile(r"\bwhere\b|\b(what|which) (city|country|state)\b")
_WORD = re.compile(r"[^\W_]+(?:['’.,][^\W_]+)*")
_YEAR = re.compile(r"\b(1\d|20)\d\ds?\b")
_MONTHS = frozenset(
    "january february march april may june july august september october november december".split(),
)
_NUMBERS = frozenset(
    (
        "one two three four five six seven eight nine ten eleven twelve thirteen twenty thirty forty fifty hundred "
        "thousand million billion once twice dozen first second third"
    ).split()
)


def mismatch(question: str, said: str) -> bool:
    """Whether `said` is plainly not of the kind that `question` asks for."""
    asked, kind = question.casefold(), kind_of(said)
    if _HOW_MANY.search(asked) or _WHEN.search(asked):
        return kind not in ("number", "date")
    if _WHO.search(asked):
        return kind != "name"
    if _WHERE.search(asked):
        return kind in ("number", "date")
    return False


def kind_of(said: str) -> Kind:
    """What `said` looks like."""
    words = [match.group() for match in _WORD.finditer(said)]
    digits = any(character.isdigit() for character in said)
    if any(word.lower() in _MONTHS and word[0].isupper() for word in words) and (digits or len(words) == 1):
        return "date"
    if len(words) <= 4 and _YEAR.search(said):
        return "date"
    if digits or any(word.lower() in _NUMBERS for word in words):
        return "number"
    names = any(word[0].isupper() for word in words)
    return "name" if names and not any(word[0].islower() and content_words(word) for word in words) else "other"
