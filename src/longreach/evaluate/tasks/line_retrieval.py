"""`line_retrieval`: the number in one line among as many as fit."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import Question, tasks
from longreach.evaluate.tasks.planted import Plan, Planted
from longreach.evaluate.vocabulary import names, values


@tasks.register("line_retrieval")
@dataclass(frozen=True)
class LineRetrieval(Planted):
    """Lines that have a name and a number fill the context (Li et al. 2023, LongEval). Each of several `questions` asks
    for another line."""

    instructions: ClassVar[str] = "Below is a register. Each line has a name and a number."

    def plan(self, random: Random) -> Plan:
        keys, numbers = names(random), values("numbers", random)
        pairs = [(next(keys).replace(" ", "-"), next(numbers)) for _ in range(self.questions)]
        questions = [
            Question(
                f"Which number stands in the line {key}?", (value,), "any_answer", 16, f"The number in {key} is", (at,)
            )
            for at, (key, value) in enumerate(pairs)
        ]
        filler = (_line(next(keys).replace(" ", "-"), next(numbers)) for _ in iter(int, 1))
        return Plan([_line(*pair) for pair in pairs], [random.random() for _ in pairs], questions, filler)


def _line(key: str, value: str) -> str:
    return f"line {key}: {value}"
