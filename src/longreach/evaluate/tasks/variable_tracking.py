"""`variable_tracking`: which variables end up with the same value?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import Question, tasks
from longreach.evaluate.tasks.planted import Plan, Planted, ascending
from longreach.evaluate.vocabulary import values, variables


@tasks.register("variable_tracking")
@dataclass(frozen=True)
class VariableTracking(Planted):
    """Chains of assignments, in their order, of which each takes the value of the one before it over `hops` steps; all
    variables of one chain are wanted (Hsieh et al. 2024, RULER, arXiv 2404.06654). With `chains` above 1 the others are
    in the way, and each of several `questions` asks about another one."""

    instructions: ClassVar[str] = (
        "In the text below, variables are given values, some of them the value of another variable. Keep track of them."
    )
    chains: int = 1
    hops: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hops < 1 or self.chains < self.questions:
            raise ValueError("hops must be at least 1, chains at least 1 and no fewer than questions")

    def plan(self, random: Random) -> Plan:
        fresh, numbers = variables(random), values("numbers", random)
        planted: list[str] = []
        depths: list[float] = []
        questions = []
        for chain in range(self.chains):
            told, number = [next(fresh) for _ in range(self.hops + 1)], next(numbers)
            gold = tuple(range(len(planted), len(planted) + len(told)))
            planted.append(f"The variable {told[0]} is set to {number}.")
            planted += [f"The variable {one} is set to the value of {other}." for other, one in pairwise(told)]
            depths += ascending(random, len(told))
            if chain < self.questions:
                questions.append(self._asked(number, told, gold))
        return Plan(planted, depths, questions)

    def _asked(self, number: str, told: list[str], gold: tuple[int, ...]) -> Question:
        text = f"Which {len(told)} variables have the value {number}?"
        lead = f"The variables with the value {number} are"
        return Question(text, tuple(told), "all_answers", 16 + 8 * len(told), lead, gold)
