"""Questions about all documents of a library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from longreach.evaluate.questions import Made, Maker
from longreach.evaluate.questions.sift import Sentences, clear, spread
from longreach.library import Library

RULES = ("sections", "definitions", "numbers", "names")
"""Makers that need no model."""


@dataclass(frozen=True)
class Harvest:
    """`kept` of the `made` questions, and the `texts` of the documents by their ids."""

    kept: list[Made]
    made: int
    texts: Mapping[str, str]


def harvest(
    library: Library, makers: Sequence[Maker], limit: int, report: Callable[[int, int], None] = lambda read, made: None
) -> Harvest:
    """At most `limit` questions, none of which another sentence of the library answers. `report` is told how many
    documents were read and how many questions made."""
    known = Sentences()
    made: list[Made] = []
    texts: dict[str, str] = {}
    for number, info in enumerate(library.documents(), start=1):
        document = library.get(info.id)
        texts[document.id] = document.text
        known.add(document)
        made += [one for maker in makers for one in maker.make(document)]
        report(number, len(made))
    return Harvest(spread(clear(made, known), limit), len(made), texts)
