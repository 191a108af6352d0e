"""Choosing a configuration within limits of time and memory: successive halving, and how sure the choice is.

After each round the better half of the arms that keep the limits goes on, so that about as much is spent on every round
(Karnin et al. 2013; Jamieson and Talwalkar 2016, arXiv 1502.07943).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from longreach.errors import InputError
from longreach.evaluate.statistics import RESAMPLES, Difference, Estimate, compare, estimate
from longreach.evaluate.sweep import Arm

LEAST = 4
"""Examples of the first round, at least."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer may cost: seconds to the first token in the median, bytes of KV at most; None is no limit."""

    ttft: float | None = None
    kv_bytes: int | None = None

    def excess(self, arm: Arm) -> float:
        """By what factor an arm is over the worse of the limits; at most 1 keeps them."""
        shares = [0.0]
        if self.ttft is not None:
            shares.append(arm.ttft / self.ttft)
        if self.kv_bytes is not None:
            shares.append(arm.kv_bytes / self.kv_bytes)
        return max(shares)

    def better_half(self, arms: Sequence[Arm]) -> list[Arm]:
        """A rule for sweeps: of the arms that keep the limits, the better half. Where none does, those that are the
        nearest to them."""
        within = [arm for arm in arms if self.excess(arm) <= 1]
        if not within:
            ranked = sorted(arms, key=self.excess)
            return ranked[: math.ceil(len(arms) / 2)]
        ranked = sorted(within, key=lambda arm: (-_mean(arm), arm.ttft))
        return ranked[: math.ceil(len(within) / 2)]


@dataclass(frozen=True)
class Choice:
    """The arm chosen, its score, and how often it is first where the examples are drawn anew (`sure`, among it and its
    rivals, on the examples all of them had; those that are level share a draw). `second` is the runner-up with
    what the choice is better by; `cost` the share of a full grid's answers that were given."""

    arm: Arm
    score: Estimate
    sure: float
    second: tuple[Arm, Difference] | None
    cost: float


def first_round(arms: int, examples: int) -> int:
    """How many examples the first round has, so that doubling them each time ends at all of them with one arm left."""
    return max(LEAST, examples >> max(0, math.ceil(math.log2(max(1, arms)))))


def choose(arms: Sequence[Arm], limits: Limits, examples: int) -> Choice:
    """The best of the arms that went to the end within the limits. Raises InputError where none keeps them."""
    last = [arm for arm in arms if not arm.stopped]
    within = [arm for arm in last if limits.excess(arm) <= 1]
    if not within:
        nearest = min(last, key=limits.excess)
        raise InputError(
            f"no configuration keeps the limits: the nearest, {nearest.name}, takes {nearest.ttft:.2f} s to the first "
            f"token and {nearest.kv_bytes / 1e6:,.1f} MB of KV; allow more, or sweep over others"
        )
    best, *others = sorted(within, key=lambda arm: (-_mean(arm), arm.ttft, arm.kv_bytes))
    # Who was stopped last may still be the better one: it is counted among the rivals.
    fallen = [arm for arm in arms if arm.stopped and limits.excess(arm) <= 1]
    rivals = [*others, *sorted(fallen, key=lambda arm: (-len(arm.lines), -_mean(arm)))[: max(1, len(last))]]
    second = (rivals[0], compare(rivals[0].scores, best.scores)) if rivals else None
    given = sum(len(arm.lines) for arm in arms)
    return Choice(
        best, estimate(list(best.scores.values())), _sure(best, rivals), second, given / (len(arms) * examples)
    )


def _sure(best: Arm, rivals: Sequence[Arm]) -> float:
    shared = set(best.scores).intersection(*(rival.scores for rival in rivals)) if rivals else set()
    if not shared:
        return 1.0
    names = sorted(shared)
    scores = np.array([[arm.scores[name] for name in names] for arm in (best, *rivals)])
    picks = np.random.default_rng(0).integers(len(names), size=(RESAMPLES, len(names)))
    means = scores[:, picks].mean(2)
    level = means >= means.max(0)
    return float((level[0] / level.sum(0)).mean())


def _mean(arm: Arm) -> float:
    scores = arm.scores.values()
    return sum(scores) / len(scores)
