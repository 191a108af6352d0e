"""`niah_multikey`: one needle is wanted, others like it are in the way."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

from longreach.evaluate.tasks import tasks
from longreach.evaluate.tasks.needles import INSTRUCTIONS, asked, needle
from longreach.evaluate.tasks.planted import Plan, Planted
from longreach.evaluate.vocabulary import ValueKind, names, values


@tasks.register("niah_multikey")
@dataclass(frozen=True)
class NiahMultikey(Planted):
    """The code of one of `keys` keys (Hsieh et al. 2024, RULER, arXiv 2404.06654); `keys="all"` fills the whole context
    with needles in place of prose. Each of several `questions` asks for another key."""

    instructions: ClassVar[str] = INSTRUCTIONS
    keys: int | Literal["all"] = 4
    value: ValueKind = "numbers"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keys != "all" and self.keys < self.questions:
            raise ValueError(f"keys={self.keys} must be at least 1 and no fewer than questions={self.questions}")

    def plan(self, random: Random) -> Plan:
        keys, codes = names(random), values(self.value, random)
        count = self.questions if self.keys == "all" else self.keys
        pairs = [(next(keys), next(codes)) for _ in range(count)]
        depths = [random.random() for _ in pairs]
        questions = [
            asked([key], [code], [at], self.value, 1) for at, (key, code) in enumerate(pairs[: self.questions])
        ]
        filler = (needle(next(keys), next(codes)) for _ in iter(int, 1)) if self.keys == "all" else None
        return Plan([needle(*pair) for pair in pairs], depths, questions, filler)
