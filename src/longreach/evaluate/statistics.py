"""How sure a mean is, and whether two runs over the same examples differ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from longreach.errors import InputError

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of `n` values with the interval, `low` to `high`, that holds the true one at the level asked for."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Difference:
    """Run B less run A over the `n` examples that both have: their means there, the difference with its interval, and
    `p`, how likely one as large is where the two are alike (paired permutation test, two-sided)."""

    first: float
    second: float
    difference: Estimate
    p: float

    @property
    def n(self) -> int:
        return self.difference.n


def estimate(values: Sequence[float], *, seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES) -> Estimate:
    """The mean with its bootstrap interval (bias-corrected and accelerated, Efron 1987). Values that are all alike have
    an interval of no width, which says nothing about values not seen. Raises InputError where there is none."""
    if not len(values):
        raise InputError("there are no values to average")
    data = np.asarray(values, np.float64)
    mean = float(data.mean())
    if np.ptp(data) == 0:
        return Estimate(mean, mean, mean, len(data))
    low, high = _interval(data, "BCa", seed, level, resamples)
    if math.isnan(low) or math.isnan(high):  # too few different values to correct by
        low, high = _interval(data, "percentile", seed, level, resamples)
    return Estimate(mean, min(low, mean), max(high, mean), len(data))


def compare(
    first: Mapping[str, float], second: Mapping[str, float], *, seed: int = 0, level: float = LEVEL
) -> Difference:
    """What `second` makes better than `first`, by the examples that both name. Raises InputError where there are
    none."""
    shared = [key for key in first if key in second]
    if not shared:
        raise InputError("the two runs have no example in common")
    one, other = (np.array([run[key] for key in shared], np.float64) for run in (first, second))
    change = other - one
    return Difference(
        float(one.mean()),
        float(other.mean()),
        estimate(change.tolist(), seed=seed, level=level),
        _p_value(change, seed),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of several comparisons, corrected so that the chance of even one false alarm among them stays at the
    level they are held to (Holm 1979): the smallest times their number, the next times one less, never falling."""
    corrected = [0.0] * len(p_values)
    least = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[at]))
        corrected[at] = least
    return corrected


def _interval(data: np.ndarray, method: str, seed: int, level: float, resamples: int) -> tuple[float, float]:
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate resamples, told by NaN
        drawn = stats.bootstrap(
            (data,),
            np.mean,
            n_resamples=resamples,
            confidence_level=level,
            method=method,
            rng=np.random.default_rng(seed),
            batch=max(1, 4_000_000 // len(data)),
        )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _p_value(change: np.ndarray, seed: int) -> float:
    """Signs of the differences that are not 0 are drawn anew, all of them where they are few."""
    from scipy import stats

    moved = change[change != 0]
    if len(moved) < 2:
        return 1.0  # either sign does as much
    test = stats.permutation_test(
        (moved,),
        np.mean,
        permutation_type="samples",
        n_resamples=9999,
        rng=np.random.default_rng(seed),
        batch=max(1, 4_000_000 // len(moved)),
        vectorized=True,
    )
    return float(test.pvalue)
