"""`kv_retrieval`: the value of one key among as many as fit."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import Question, tasks
from longreach.evaluate.tasks.planted import Plan, Planted
from longreach.evaluate.vocabulary import values


def line(key: str, value: str) -> str:
    """One pair as it is shown."""
    return f'"{key}": "{value}",'


def asked(key: str, value: str, gold: int) -> Question:
    """Asks for the value of a key."""
    return Question(
        f'Which value has the key "{key}"?', (value,), "any_answer", 48, f'The value of "{key}" is', (gold,)
    )


@tasks.register("kv_retrieval")
@dataclass(frozen=True)
class KvRetrieval(Planted):
    """Pairs of random UUIDs fill the context (Liu et al. 2023, arXiv 2307.03172); nothing but the key itself tells
    where its value stands. Each of several `questions` asks for another key."""

    instructions: ClassVar[str] = "Below are pairs of a key and its value."

    def plan(self, random: Random) -> Plan:
        ids = values("uuids", random)
        pairs = [(next(ids), next(ids)) for _ in range(self.questions)]
        questions = [asked(key, value, at) for at, (key, value) in enumerate(pairs)]
        filler = (line(next(ids), next(ids)) for _ in iter(int, 1))
        return Plan([line(*pair) for pair in pairs], [random.random() for _ in pairs], questions, filler)
