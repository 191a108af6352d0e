"""One reading for all configurations that have the model read the same passages: what differs only in what was searched
for, or in room that was not needed, is answered once.

An answer is made from the engine, the way of answering, the question and the passages with their scores: where all of
these are equal, so is the answer. Each configuration searches and chooses itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from longreach.evaluate.grid import Point
from longreach.evaluate.respond import ReaderRespondent, Response, response_of, start_afresh
from longreach.evaluate.tasks import Example
from longreach.types import Answer, Passage, Timing

if TYPE_CHECKING:
    from longreach.answer import Answerer
    from longreach.engine import Engine


@dataclass(frozen=True)
class _Read:
    """What an answer was made from, and the answer."""

    engine: Engine
    answerer: Answerer
    question: str
    passages: Sequence[Passage]
    answer: Answer


class SharedReading:
    """Answers examples with the reader of each point. The time of an answer that another point's reader gave is its
    own search with the other's reading."""

    def __init__(self, readers: Sequence[tuple[Point, ReaderRespondent]]) -> None:
        self._readers = {_key(point): reader for point, reader in readers}

    def columns(self, point: Point) -> Mapping[str, str]:
        """What tells a point's lines from others: an answer is the same by itself."""
        return self._readers[_key(point)].columns

    def respond(self, example: Example, points: Sequence[Point]) -> Iterator[list[Response]]:
        """The responses of each point to the questions, as they come."""
        known: list[_Read] = []
        for point in points:
            respondent = self._readers[_key(point)]
            yield [response_of(_ask(respondent, question.text, known)) for question in example.questions]


def _ask(respondent: ReaderRespondent, question: str, known: list[_Read]) -> Answer:
    from longreach.reader import Found

    reader = respondent.reader
    start_afresh(reader.engine)
    events = reader.stream(question)
    found = next(events)
    assert isinstance(found, Found)
    passages = list(found.passages)
    for read in known:
        same = read.engine is reader.engine and read.answerer == reader.answerer
        if same and read.question == question and read.passages == passages:
            return replace(read.answer, timing=_timed(read.answer.timing, found.seconds))
    answer = next(event for event in events if isinstance(event, Answer))
    known.append(_Read(reader.engine, reader.answerer, question, passages, answer))
    return answer


def _timed(timing: Timing, search: float) -> Timing:
    """The times of an answer whose search took `search` seconds."""
    return Timing(search, timing.ttft - timing.search + search, timing.total - timing.search + search)


def _key(point: Point) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(point.items()))
