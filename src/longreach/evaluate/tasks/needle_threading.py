"""`needle_threading`: each value is the key of the next pair; where does the thread end?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar, Literal

from longreach.evaluate.tasks import Question, tasks
from longreach.evaluate.tasks.kv_retrieval import line
from longreach.evaluate.tasks.planted import Plan, Planted, ascending
from longreach.evaluate.vocabulary import ValueKind, values


@tasks.register("needle_threading")
@dataclass(frozen=True)
class NeedleThreading(Planted):
    """Threads of `hops` pairs among random pairs (Roberts et al. 2024, arXiv 2411.05000). The next pair of a thread
    stands further on (`forward`), further back (`backward`) or anywhere.

    `threads` are planted and `follow` of them asked for at once; with `branches` above 1 each key on the way stands
    there so many times, and only one of its values leads on. Each of several `questions` follows other threads.
    """

    instructions: ClassVar[str] = "Below are pairs of a key and its value. A value can be the key of another pair."
    hops: int = 4
    direction: Literal["forward", "backward", "anywhere"] = "forward"
    threads: int = 1
    follow: int = 1
    branches: int = 1
    value: ValueKind = "uuids"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.hops, self.follow, self.branches) < 1 or self.threads < self.follow * self.questions:
            raise ValueError("hops, follow and branches must be at least 1, and threads enough for what is asked for")

    def plan(self, random: Random) -> Plan:
        ids = values(self.value, random)
        planted: list[str] = []
        depths: list[float] = []
        ends: list[tuple[str, str, range]] = []
        for _ in range(self.threads):
            keys = [next(ids) for _ in range(self.hops + 1)]
            first = len(planted)
            planted += [line(*pair) for pair in pairwise(keys)]
            depths += self._depths(random)
            ends.append((keys[0], keys[-1], range(first, len(planted))))
            for key in keys[:-1]:
                dead = [line(key, next(ids)) for _ in range(self.branches - 1)]
                planted += dead
                depths += [random.random() for _ in dead]
        asked = [ends[at : at + self.follow] for at in range(0, self.follow * self.questions, self.follow)]
        filler = (line(next(ids), next(ids)) for _ in iter(int, 1))
        return Plan(planted, depths, [self._asked(group) for group in asked], filler)

    def _depths(self, random: Random) -> list[float]:
        depths = ascending(random, self.hops)
        if self.direction == "backward":
            depths.reverse()
        elif self.direction == "anywhere":
            random.shuffle(depths)
        return depths

    def _asked(self, group: list[tuple[str, str, range]]) -> Question:
        keys = " and ".join(f'"{start}"' for start, _, _ in group)
        dead = " Where a key has several values, follow the one that is a key again." if self.branches > 1 else ""
        text = (
            f"Start from the key {keys}. Look its value up; where that is a key, look its value up, and so on, up to a "
            f"value that is no key.{dead} What is the last value{'' if len(group) == 1 else ' of each'}?"
        )
        answers = tuple(end for _, end, _ in group)
        gold = tuple(at for _, _, numbers in group for at in numbers)
        lead = "The last value is" if len(group) == 1 else "The last values are"
        return Question(text, answers, "all_answers", 16 + 40 * len(group), lead, gold)
