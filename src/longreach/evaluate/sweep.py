"""A sweep: many configurations, its arms, over the same examples, round after round; hopeless ones stop early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from statistics import median
from typing import Any, Protocol, TypeAlias

from longreach.errors import InputError
from longreach.evaluate.grid import Point
from longreach.evaluate.provenance import provenance
from longreach.evaluate.respond import Respondent, Response
from longreach.evaluate.results import Results, key_of
from longreach.evaluate.run import label, made_line, scored
from longreach.evaluate.tasks import Example, Task

FIRST = 8
"""Examples of the first round; each later round has twice as many."""


class Source(Protocol):
    """Answers an example for several points at once, sharing what they have in common."""

    def columns(self, point: Point) -> Mapping[str, str]:
        """What tells a point's lines from others."""
        ...

    def respond(self, example: Example, points: Sequence[Point]) -> Iterator[list[Response]]:
        """The responses of each point, in their order, as they come."""
        ...


@dataclass(frozen=True)
class Alone:
    """A respondent that shares nothing with others."""

    respondent: Respondent

    def columns(self, point: Point) -> Mapping[str, str]:
        return self.respondent.columns

    def respond(self, example: Example, points: Sequence[Point]) -> Iterator[list[Response]]:
        for _ in points:
            yield self.respondent.respond(example)


@dataclass(eq=False)
class Arm:
    """A point of the grid with what it has shown so far: `lines` in the order of the examples."""

    point: Point
    source: Source
    lines: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False

    @property
    def scores(self) -> dict[str, float]:
        """By example."""
        return {line["example"]: float(line["score"]) for line in self.lines}

    @property
    def ttft(self) -> float:
        """The median time to the first token, in seconds."""
        return float(median(cost["ttft"] for cost in self._costs()))

    @property
    def kv_bytes(self) -> int:
        """The most that one answer held."""
        return max(int(cost["kv_bytes"]) for cost in self._costs())

    @property
    def name(self) -> str:
        """The point as people read it."""
        return ", ".join(f"{axis}={value}" for axis, value in self.point.items())

    def _costs(self) -> Iterator[Mapping[str, Any]]:
        return (question["cost"] for line in self.lines for question in line["questions"])


Rule: TypeAlias = Callable[[Sequence[Arm]], Sequence[Arm]]
"""Which of the arms that are left go on after a round."""


def sweep(
    task: Task,
    arms: Sequence[Arm],
    results: Results,
    *,
    limit: int | None = None,
    rule: Rule = lambda arms: arms,
    first: int = FIRST,
    progress: Callable[[int, int, bool], None] = lambda done, total, fresh: None,
) -> int:
    """Run `arms` over the first `limit` examples of a task and fill in their lines, those that `results` has taken from
    there. After `first` examples, twice as many and so on, `rule` says which arms go on; the others are `stopped`.

    `progress` is told how many answers there are, of how many there will be at most, and whether the last was computed
    now. Returns that first number. Raises InputError for a limit below 1 and for arms that are the same, and what the
    sources do: what was done before is kept.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: run at least one example")
    total = len(task) if limit is None else min(limit, len(task))
    name = label(task)
    columns = {id(arm): dict(arm.source.columns(arm.point)) for arm in arms}
    _check_different(arms, columns)
    examples = islice(task.examples(), total)
    live, done, seen, begun = list(arms), 0, 0, False
    for end in rounds(total, first):
        for example in islice(examples, end - seen):
            for arm, line in _found(name, example, live, columns, results):
                if fresh := line is None:
                    continue
                arm.lines.append(line)
                done += 1
                progress(done, done + _left(live, total), fresh)
            missing = [arm for arm in live if not _has(arm, example)]
            for arm, responses in _answers(example, missing):
                if not begun:
                    results.begin(provenance())
                    begun = True
                line = made_line(task, columns[id(arm)], example, scored(example, responses))
                arm.lines.append(results.add(line))
                done += 1
                progress(done, done + _left(live, total), True)
        seen = end
        if end < total and len(live) > 1:
            chosen = set(map(id, rule(live)))
            for arm in live:
                arm.stopped = id(arm) not in chosen
            live = [arm for arm in live if not arm.stopped]
    return done


def rounds(total: int, first: int = FIRST) -> list[int]:
    """After how many examples each round ends."""
    ends = [min(first, total)]
    while ends[-1] < total:
        # A last round that would be short is part of the one before it.
        ends.append(total if 3 * ends[-1] > total else 2 * ends[-1])
    return ends


def _check_different(arms: Sequence[Arm], columns: Mapping[int, Mapping[str, str]]) -> None:
    known: dict[str, Arm] = {}
    for arm in arms:
        other = known.setdefault(repr(sorted(columns[id(arm)].items())), arm)
        if other is not arm:
            raise InputError(f"{other.name} and {arm.name} are the same: name one of them in the sweep")


def _found(
    name: str, example: Example, arms: Sequence[Arm], columns: Mapping[int, Mapping[str, str]], results: Results
) -> Iterator[tuple[Arm, dict[str, Any] | None]]:
    for arm in arms:
        yield arm, results.find(key_of(name, columns[id(arm)], example))


def _has(arm: Arm, example: Example) -> bool:
    return bool(arm.lines) and arm.lines[-1]["example"] == example.id


def _left(live: Sequence[Arm], total: int) -> int:
    return sum(total - len(arm.lines) for arm in live)


def _answers(example: Example, arms: Sequence[Arm]) -> Iterator[tuple[Arm, list[Response]]]:
    """Every arm's responses; arms with the same source are asked together."""
    for _, group in groupby(sorted(arms, key=lambda arm: id(arm.source)), key=lambda arm: id(arm.source)):
        together = list(group)
        yield from zip(together, together[0].source.respond(example, [arm.point for arm in together]), strict=True)
