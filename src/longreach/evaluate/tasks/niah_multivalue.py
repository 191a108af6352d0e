"""`niah_multivalue`: one key has several codes, all are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import tasks
from longreach.evaluate.tasks.needles import INSTRUCTIONS, asked, needle
from longreach.evaluate.tasks.planted import Plan, Planted
from longreach.evaluate.vocabulary import ValueKind, names
from longreach.evaluate.vocabulary import values as codes_of


@tasks.register("niah_multivalue")
@dataclass(frozen=True)
class NiahMultivalue(Planted):
    """All `values` codes of one key, each told in a sentence of its own (Hsieh et al. 2024, RULER, arXiv 2404.06654).
    Each of several `questions` has a key of its own."""

    instructions: ClassVar[str] = INSTRUCTIONS
    values: int = 4
    value: ValueKind = "numbers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.values < 2:
            raise ValueError(f"values={self.values} must be at least 2")

    def plan(self, random: Random) -> Plan:
        keys, codes = names(random), codes_of(self.value, random)
        planted: list[str] = []
        questions = []
        for _ in range(self.questions):
            key, told = next(keys), [next(codes) for _ in range(self.values)]
            gold = range(len(planted), len(planted) + self.values)
            planted += [needle(key, code) for code in told]
            questions.append(asked([key], told, gold, self.value, self.values))
        return Plan(planted, [random.random() for _ in planted], questions)
