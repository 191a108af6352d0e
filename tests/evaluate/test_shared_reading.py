"""What has the model read the same passages is answered once, and everyone's answer is as if it had been alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hashed import open_hashed
from longreach.answer import Draft
from longreach.evaluate.respond import ReaderRespondent, response_of
from longreach.evaluate.shared_reading import SharedReading
from longreach.evaluate.tasks import Example, Question
from longreach.reader import Reader
from longreach.types import Document, Usage


@dataclass(frozen=True)
class Counted:
    """Says which passages it was given, and remembers that it was asked."""

    asked: list[tuple[int, ...]] = field(default_factory=list, compare=False)

    def overhead(self, question: str, engine: Any) -> int:
        return 0

    def prompt(self, question: str, passages: Any, engine: Any) -> list[Any]:
        return []

    def answer(self, question: str, passages: Any, engine: Any):
        self.asked.append(tuple(passage.number for passage in passages))
        yield "x"
        return Draft(" ".join(passage.text for passage in passages), [], Usage(prompt_tokens=len(passages)))


class Engine:
    """Counts words, computes nothing."""

    model, context_length, keeps_passages, parameters = "none", 4096, False, 0

    def count(self, text: str) -> int:
        return len(text.split())


@pytest.fixture
def readers(tmp_path: Path):
    """Points with readers that share an engine and a library; and how often each was asked."""
    library = open_hashed(tmp_path / "l.library")
    library.add_documents(Document(f"d{n}", f"The keeper of the harbor number {n} was Anna.") for n in range(6))
    engine: Any = Engine()
    counted = Counted()

    def made(**given: Any) -> ReaderRespondent:
        options: dict[str, Any] = {"retriever": "bm25", "chooser": "top_k(k=2)", "answer": "extract", **given}
        reader = Reader(library, engine, **options, least_relevance=-1)
        reader.answerer = counted
        return ReaderRespondent(reader, {})

    with library:
        yield made, counted


def test_the_same_passages_are_read_once_and_others_by_themselves(readers) -> None:
    made, counted = readers
    points = [
        {"k": "4", "chooser": "top_k(k=2)"},
        {"k": "6", "chooser": "top_k(k=2)"},
        {"k": "6", "chooser": "top_k(k=3)"},
    ]
    source = SharedReading([(point, made(k=int(point["k"]), chooser=point["chooser"])) for point in points])
    example = Example("0", (Question("who was the keeper of the harbor", ("Anna",), "any_answer"),))
    told = [one for (one,) in source.respond(example, points)]
    assert counted.asked == [(1, 2), (1, 2, 3)]
    alone = [
        response_of(made(k=int(point["k"]), chooser=point["chooser"]).reader.ask(example.questions[0].text))
        for point in points
    ]
    assert [replace(one, cost=None) for one in told] == [replace(one, cost=None) for one in alone]  # type: ignore[arg-type]
    assert all(0 < one.cost.ttft <= one.cost.total for one in told)


def test_another_way_of_answering_reads_for_itself(readers) -> None:
    made, counted = readers
    first, second = made(), made()
    second.reader.answerer = replace(counted, asked=counted.asked)
    third = made()
    third.reader.answerer = Other(counted.asked)
    points = [{"answer": name} for name in "abc"]
    source = SharedReading(list(zip(points, (first, second, third), strict=True)))
    example = Example("0", (Question("who was the keeper of the harbor", ("Anna",), "any_answer"),))
    list(source.respond(example, points))
    assert len(counted.asked) == 2
    list(source.respond(example, points))
    assert len(counted.asked) == 4  # nothing is kept from one example to the next


@dataclass(frozen=True)
class Other(Counted):
    """Answers in another way."""
