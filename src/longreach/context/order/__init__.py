"""Orders: where in the prompt each passage stands. One method a file, named as its spec names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from longreach.registry import Family

T = TypeVar("T")


class Order(Protocol):
    """Permutes what the chooser took."""

    def order(self, best_first: Sequence[T]) -> list[T]:
        """The same passages as they shall stand in the prompt, the question coming after the last."""
        ...


orders: Family[Order] = Family("orders", __name__)
