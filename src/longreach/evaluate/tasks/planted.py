"""Tasks in which sentences are planted: in prose, or among many of their own kind."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from longreach.evaluate.tasks import Example, Question
from longreach.evaluate.tasks.generated import Generated, segments


@dataclass(frozen=True, slots=True)
class Plan:
    """What one example is about: the `planted` sentences, the depths from 0 to 1 at which they stand, and the
    questions, whose `gold` are numbers of planted sentences. `filler` gives what stands between; None is the haystack's
    prose."""

    planted: Sequence[str]
    depths: Sequence[float]
    questions: Sequence[Question]
    filler: Iterator[str] | None = None


@dataclass(frozen=True)
class Planted(Generated):
    """A generated task that says what is planted and asked; the rest is done here."""

    instructions: ClassVar[str]

    @abstractmethod
    def plan(self, random: Random) -> Plan:
        """What example `random` is about."""

    def example(self, number: int) -> Example:
        random = self.random(number)
        plan = self.plan(random)
        start = random.randrange(len(self.hay.sentences))
        if plan.filler is None:
            guess = self.length * 3 // 4
            made, _ = self.fitted(lambda words: self._laid(number, plan, self.hay.stretch(start, words), " "), guess)
            return made
        filler = _Taken(plan.filler)
        guess = self.length // max(1, self.count(plan.planted[0]))
        _, items = self.fitted(lambda items: self._laid(number, plan, filler.first(items), "\n"), guess)
        # What no further line fits into is filled with prose before the first.
        rest = self.length // 100
        made, _ = self.fitted(
            lambda words: self._laid(number, plan, filler.first(items), "\n", self.hay.stretch(start, words)), rest
        )
        return made

    def _laid(
        self, number: int, plan: Plan, filler: Sequence[str], separator: str, before: Sequence[str] = ()
    ) -> Example:
        pieces, places = bury(plan.planted, plan.depths, filler)
        context, where = segments(pieces, separator)
        preface = (" ".join(before),) if before else ()
        questions = tuple(
            replace(question, gold=tuple(sorted({where[places[at]] + len(preface) for at in question.gold})))
            for question in plan.questions
        )
        return Example(str(number), questions, self.instructions, (*preface, *context), self.mode)


def bury(planted: Sequence[str], depths: Sequence[float], filler: Sequence[str]) -> tuple[list[str], list[int]]:
    """The filler with each planted sentence at its depth, and the place of each. At the same place, the one that is
    named first stands first."""
    order = sorted(range(len(planted)), key=lambda at: (round(depths[at] * len(filler)), at))
    pieces: list[str] = []
    places = [0] * len(planted)
    done = 0
    for at in order:
        cut = round(depths[at] * len(filler))
        pieces += filler[done:cut]
        done = cut
        places[at] = len(pieces)
        pieces.append(planted[at])
    return [*pieces, *filler[done:]], places


def ascending(random: Random, count: int) -> list[float]:
    """`count` random depths, the smallest first."""
    return sorted(random.random() for _ in range(count))


class _Taken:
    """The beginning of an endless iterator, as often as wished."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._taken: list[str] = []

    def first(self, count: int) -> list[str]:
        while len(self._taken) < count:
            self._taken.append(next(self._source))
        return self._taken[:count]
