"""`niah_multiquery`: the codes of several keys are wanted at once."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import tasks
from longreach.evaluate.tasks.needles import INSTRUCTIONS, asked, needle
from longreach.evaluate.tasks.planted import Plan, Planted
from longreach.evaluate.vocabulary import ValueKind, names, values


@tasks.register("niah_multiquery")
@dataclass(frozen=True)
class NiahMultiquery(Planted):
    """The codes of `queries` keys in one question (Hsieh et al. 2024, RULER, arXiv 2404.06654). Each of several
    `questions` has keys of its own."""

    instructions: ClassVar[str] = INSTRUCTIONS
    queries: int = 4
    value: ValueKind = "numbers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 2:
            raise ValueError(f"queries={self.queries} must be at least 2")

    def plan(self, random: Random) -> Plan:
        keys, codes = names(random), values(self.value, random)
        pairs = [(next(keys), next(codes)) for _ in range(self.queries * self.questions)]
        questions = []
        for first in range(0, len(pairs), self.queries):
            gold = range(first, first + self.queries)
            questions.append(asked([pairs[at][0] for at in gold], [pairs[at][1] for at in gold], gold, self.value, 1))
        return Plan([needle(*pair) for pair in pairs], [random.random() for _ in pairs], questions)
