"""Making a text as long as was asked for, in tokens."""

from __future__ import annotations

from collections.abc import Callable

from longreach.errors import InputError

TOLERANCE = 0.004
"""Near enough: this share below the length asked for."""


def largest(tokens: Callable[[int], int], target: int, guess: int, most: int | None = None) -> int:
    """The greatest amount whose `tokens(amount)` are at most `target`, or one within `TOLERANCE` of it.

    `tokens` grows with the amount, nearly in a straight line: a few counts are enough. `guess` is where to begin,
    `most` the amount that there is. Raises InputError where even nothing is too long.
    """
    low, at_low = 0, tokens(0)
    if at_low > target:
        raise InputError(f"length={target} is too short for this task: what must be in it takes {at_low} tokens")
    high: int | None = None
    at_high = 0
    try_at = max(1, guess)
    while most is None or low < most:
        try_at = try_at if most is None else min(try_at, most)
        found = tokens(try_at)
        if found > target:
            high, at_high = try_at, found
        else:
            low, at_low = try_at, found
            if target - at_low <= max(1, int(target * TOLERANCE)):
                return low
        if high is None:
            try_at = max(low + 1, low * target // max(1, at_low) + 1)
        elif high - low <= 1:
            return low
        else:
            between = low + (high - low) * (target - at_low) // max(1, at_high - at_low)
            # Never nearer to an end than an eighth: a line that is not straight cannot hold the search up.
            margin = (high - low) // 8
            try_at = min(max(between, low + 1, low + margin), high - 1, high - margin)
    return low
