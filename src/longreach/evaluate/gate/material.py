"""What is asked when a model is measured: questions, each with passages among which it is answered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from longreach.errors import InputError
from longreach.evaluate.questions import makers
from longreach.evaluate.questions.harvest import RULES, harvest
from longreach.library import Library
from longreach.words import content_words

MOST = 8
"""Passages that a question comes with."""
BUILT_IN = "documentation"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with `MOST` passages, fewer where there are no more: the one that answers it first, then those that
    look most alike."""

    question: str
    passages: tuple[str, ...]

    def some(self, count: int) -> list[str]:
        """The first `count` passages, in an order that has nothing to do with what they say."""
        return sorted(self.passages[:count], key=_hashed)


def built_in() -> list[Asked]:
    """Questions about Longreach's own documentation, which come with it."""
    told = json.loads(files(__package__).joinpath(f"{BUILT_IN}.json").read_text(encoding="utf-8"))
    passages: list[str] = told["passages"]
    held = [content_words(text) for text in passages]
    made = []
    for each in told["questions"]:
        gold = int(each["passage"])
        asked = content_words(each["question"]) | held[gold]
        alike = sorted(range(len(passages)), key=lambda at, asked=asked: -len(asked & held[at]))  # type: ignore[misc]
        others = [at for at in alike if at != gold][: MOST - 1]
        made.append(Asked(each["question"], tuple(passages[at] for at in (gold, *others))))
    return made


def of_library(library: Library, count: int) -> list[Asked]:
    """At most `count` questions about the documents of a library, made by rule, with the passages that a search finds
    for them. Raises InputError where none can be made."""
    asked = []
    for one in harvest(library, [makers.make(name) for name in RULES], count).kept:
        hits = library.search(one.question, MOST)
        found = [hit for hit in hits if hit.chunk.document_id == one.document and hit.chunk.start <= one.start]
        gold = next((hit for hit in found if hit.chunk.end >= one.end), None)
        first = [] if gold is None else [gold]
        asked.append(Asked(one.question, tuple(hit.text for hit in [*first, *(hit for hit in hits if hit != gold)])))
    asked = [one for one in asked if len(one.passages) > 1]
    if not asked:
        raise InputError(f"no question can be made about {library.path}: measure without --library")
    return asked


def spread_out(asked: Sequence[Asked], count: int) -> list[Asked]:
    """`count` of them, from all over."""
    return [asked[at * len(asked) // count] for at in range(count)] if count < len(asked) else list(asked)


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
