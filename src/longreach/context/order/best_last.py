"""The search's ranking turned round, so that the best stands beside the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from longreach.context.order import orders

T = TypeVar("T")


@orders.register("best_last")
@dataclass(frozen=True)
class BestLast:
    """The best at the end."""

    def order(self, best_first: Sequence[T]) -> list[T]:
        return list(best_first[::-1])
