"""The grid of a sweep, written as `policy=full,snapkv(budget=0.1..1.0); k=4..32`.

Axes stand between `;`, the values of an axis between `,`. In a value, `low..high` is a range: of whole numbers the
doublings of `low` up to `high`, which is always among them (4, 8, 16, 32); of others five even steps.
`low..high/n` has `n` even steps. A range may stand in the arguments of a method; several of them are all combined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from longreach.errors import InputError

Point: TypeAlias = Mapping[str, str]
"""One value for each axis."""

STEPS = 5
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"(?<![\w.])({_NUMBER})\.\.({_NUMBER})(?:/(\d+))?(?![\w.])")
_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "'\""


@dataclass(frozen=True, slots=True)
class Axis:
    """A name and the values that it takes, each once."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """All combinations of the values of some axes."""

    axes: tuple[Axis, ...]

    def points(self) -> list[Point]:
        """Every combination; the last axis changes quickest."""
        names = [axis.name for axis in self.axes]
        return [dict(zip(names, values, strict=True)) for values in product(*(axis.values for axis in self.axes))]


def parse_grid(text: str, known: Sequence[str]) -> Grid:
    """Read a grid whose axes are among `known`. Raises InputError."""
    axes: list[Axis] = []
    for part in split(text, ";"):
        name, equals, values = (piece.strip() for piece in part.partition("="))
        if not equals or not values:
            raise InputError(f"cannot read {part!r} in the sweep: write name=value,value; name=low..high")
        if name not in known:
            raise InputError(f"a sweep has no axis {name!r}; known: {', '.join(known)}")
        if name in (axis.name for axis in axes):
            raise InputError(f"the sweep names {name!r} twice")
        axes.append(Axis(name, tuple(dict.fromkeys(one for value in split(values, ",") for one in expand(value)))))
    if not axes:
        raise InputError("the sweep is empty: write name=value,value; name=low..high")
    return Grid(tuple(axes))


def expand(text: str) -> list[str]:
    """`text` for every combination of the values of the ranges in it. Raises InputError for a range that is none."""
    pieces: list[list[str]] = []
    at = 0
    for found in _RANGE.finditer(text):
        pieces += [[text[at : found.start()]], _steps(found)]
        at = found.end()
    return ["".join(chosen) for chosen in product(*pieces, [text[at:]])]


def split(text: str, mark: str) -> list[str]:
    """The parts of `text` between marks that stand in no brackets and no quotes, without white space around them;
    empty ones are left out. Raises InputError for a bracket or a quote that is not closed."""
    parts, part, depth, quote = [], "", 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        if letter == mark and depth == 0 and not quote:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    if depth or quote:
        raise InputError(f"cannot read {text!r}: a bracket or a quote is not closed")
    return [part for part in (*parts, part.strip()) if part]


def _steps(found: re.Match[str]) -> list[str]:
    low, high = float(found[1]), float(found[2])
    count = int(found[3]) if found[3] else STEPS
    if low >= high or count < 2:
        raise InputError(f"{found[0]!r} is no range: write low..high, or low..high/n with n at least 2")
    whole = "." not in found[1] + found[2]
    if whole and not found[3]:
        return _doublings(int(low), int(high))
    values = [low + (high - low) * step / (count - 1) for step in range(count)]
    return list(dict.fromkeys(str(round(value)) if whole else f"{value:.4g}" for value in values))


def _doublings(low: int, high: int) -> list[str]:
    if low < 1:
        raise InputError(f"{low}..{high} cannot be doubled from {low}: write {low}..{high}/n")
    values = [low]
    while 2 * values[-1] < high:
        values.append(2 * values[-1])
    return [*map(str, values), str(high)]
