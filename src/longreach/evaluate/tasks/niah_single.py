"""`niah_single`: one needle in a haystack."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import tasks
from longreach.evaluate.tasks.needles import INSTRUCTIONS, asked, needle
from longreach.evaluate.tasks.planted import Plan, Planted
from longreach.evaluate.vocabulary import ValueKind, names, values


@tasks.register("niah_single")
@dataclass(frozen=True)
class NiahSingle(Planted):
    """The code of one key (Hsieh et al. 2024, RULER, arXiv 2404.06654), at `depth` from 0 to 1, None is anywhere. With
    several `questions` there is a needle for each."""

    instructions: ClassVar[str] = INSTRUCTIONS
    value: ValueKind = "numbers"
    depth: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise ValueError(f"depth={self.depth} is out of range: 0 to 1")

    def plan(self, random: Random) -> Plan:
        keys, codes = names(random), values(self.value, random)
        pairs = [(next(keys), next(codes)) for _ in range(self.questions)]
        depths = [random.random() if self.depth is None else self.depth for _ in pairs]
        questions = [asked([key], [code], [at], self.value, 1) for at, (key, code) in enumerate(pairs)]
        return Plan([needle(*pair) for pair in pairs], depths, questions)
