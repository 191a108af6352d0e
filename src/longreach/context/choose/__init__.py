"""Choosers: which hits become passages. One method a file, named as its spec names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from longreach.registry import Family
from longreach.types import Budget, Hit


class Chooser(Protocol):
    """Takes from the hits of a search those that the model shall read."""

    def choose(self, query: str, hits: Sequence[Hit], budget: Budget) -> list[Hit]:
        """Some of `hits`, best first, together within `budget.tokens`."""
        ...


choosers: Family[Chooser] = Family("choosers", __name__)
