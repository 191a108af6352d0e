"""The words of a text as stems, so that a question and a passage can be compared by them. For English."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:['’.,][^\W_]+)*")
_FUNCTION_WORDS = """
a about according after again all also although am an and answer any are as at based be because been before being both
but by can could did do does during each either for from given had has have he her here hers him his how however i if
in into is it its itself just may might more most much must my no nor not of on one or other our out over own passage
passages provided question same she should so some such than that the their them then there therefore these they this
those through to too under until up upon very was we were what when where whether which while who whom whose why will
with within would you your s t context text document documents information stated mentioned
"""


def words(text: str) -> list[str]:
    """The stems of the words of `text`, in their order."""
    found = [match.group().casefold() for match in _WORD.finditer(text)]
    return [*_stemmer().stemWords([word.removesuffix("'s").removesuffix("’s") for word in found])]


def content_words(text: str) -> set[str]:
    """The stems of the words of `text` that carry its content."""
    return set(words(text)) - _function_stems()


@cache
def _stemmer() -> Any:
    from Stemmer import Stemmer

    return Stemmer("english")


@cache
def _function_stems() -> frozenset[str]:
    return frozenset(words(_FUNCTION_WORDS))
