"""Respondents that know all or nothing: what a task gives them shows whether it measures what it should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from longreach.evaluate.metrics.efficiency import Cost
from longreach.evaluate.prompt import ideal
from longreach.evaluate.respond import Response
from longreach.evaluate.tasks import Example, Question, Task

_FREE = Cost(0.0, 0.0, 0, 0)


@dataclass(frozen=True)
class Oracle:
    """Gives the right answer to everything."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {"model": "oracle"}

    def respond(self, example: Example) -> list[Response]:
        return [_right(question) for question in example.questions]


@dataclass(frozen=True)
class Guesser:
    """Gives the right answer to another example of the task: in form like an answer, in content chance."""

    task: Task

    @property
    def columns(self) -> Mapping[str, str]:
        return {"model": "guesser"}

    def respond(self, example: Example) -> list[Response]:
        other = next((other for other in self._some if other.id != example.id), None)
        answers = [_right(question) for question in other.questions] if other else []
        return [answers[at % len(answers)] if answers else Response("", _FREE) for at in range(len(example.questions))]

    @cached_property
    def _some(self) -> list[Example]:
        return list(islice(self.task.examples(), 2))


def _right(question: Question) -> Response:
    relevant = {document: float(grade) for document, grade in question.relevant.items() if grade > 0}
    text = ideal(question) if question.answers else ""
    return Response(text, _FREE, relevant, tuple(relevant), (text,))
