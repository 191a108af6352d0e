"""The frontier of quality, latency and memory: which configurations no other one beats in all three."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from longreach.evaluate.statistics import LEVEL, Estimate, compare, estimate
from longreach.evaluate.sweep import Arm

SLACK = 1.05
"""A time to the first token within this factor is not called later: times are never quite the same."""


@dataclass(frozen=True)
class Mark:
    """One configuration on one task: `score` with its interval, the median time to the first token in seconds (None
    where it is not told), the most bytes of KV. `best`: no other beats it; `stopped`: it was hopeless after `score.n`
    examples."""

    task: str
    name: str
    score: Estimate
    ttft: float | None
    kv_bytes: int
    stopped: bool
    best: bool = False

    def as_object(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def marks(task: str, arms: Sequence[Arm]) -> list[Mark]:
    """The arms of a sweep over one task, in their order, the front among those that were not stopped."""
    places = [(arm.ttft, arm.kv_bytes) for arm in arms]
    scores = [estimate(list(arm.scores.values())) for arm in arms]
    running = [at for at, arm in enumerate(arms) if not arm.stopped]
    on_front = dict(zip(running, front([(scores[at].mean, *places[at]) for at in running], SLACK), strict=True))
    return [
        Mark(task, arm.name, score, *place, arm.stopped, on_front.get(at, False))
        for at, (arm, score, place) in enumerate(zip(arms, scores, places, strict=True))
    ]


def front(values: Sequence[tuple[float, float, float]], slack: float = 1.0) -> list[bool]:
    """Which of (quality, seconds, bytes) are on the Pareto front: nothing else is at least as good in all three and
    better in one. Seconds within the factor `slack` count as the same."""
    return [not any(_beats(other, value, slack) for other in values) for value in values]


def undominated(arms: Sequence[Arm]) -> list[Arm]:
    """A rule for sweeps: an arm stops when another costs no more and is surely better. Sure is an interval of paired
    differences above 0, at a level that allows for the number of arms."""
    level = 1 - (1 - LEVEL) / max(1, len(arms) - 1)
    return [arm for arm in arms if not any(_surely(other, arm, level) for other in arms if other is not arm)]


def _surely(other: Arm, arm: Arm, level: float) -> bool:
    if other.kv_bytes > arm.kv_bytes or other.ttft > SLACK * arm.ttft:
        return False
    mine, theirs = arm.scores, other.scores
    if sum(theirs.values()) <= sum(mine.values()):
        return False
    return compare(mine, theirs, level=level).difference.low > 0


def _beats(other: tuple[float, float, float], value: tuple[float, float, float], slack: float) -> bool:
    if other[0] < value[0] or other[1] > slack * value[1] or other[2] > value[2]:
        return False
    return other[0] > value[0] or other[2] < value[2] or slack * other[1] < value[1]
