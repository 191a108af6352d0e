"""What configurations are called in a figure: those that differ in numbers alone have one colour."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longreach.evaluate.frontier import Mark

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f")
"""Told apart with any eyes (Okabe and Ito 2008); after the last, the first comes again."""

_NUMBER = re.compile(r"(?<![\w])-?\d+(?:\.\d+)?")


def family(mark: Mark) -> str:
    """The configuration with its numbers taken out."""
    return _NUMBER.sub("…", mark.name)


def colours(marks: Sequence[Mark]) -> dict[str, str]:
    """A colour for each family."""
    found = dict.fromkeys(family(mark) for mark in marks)
    return {name: COLOURS[at % len(COLOURS)] for at, name in enumerate(found)}
