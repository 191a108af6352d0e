"""As the search ranked them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from longreach.context.order import orders

T = TypeVar("T")


@orders.register("best_first")
@dataclass(frozen=True)
class BestFirst:
    """The best at the beginning."""

    def order(self, best_first: Sequence[T]) -> list[T]:
        return list(best_first)
