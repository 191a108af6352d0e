"""The best passages at both ends of the prompt, the weakest in its middle.

Language models read the ends of a long prompt better than its middle (Jin et al., "Long-Context LLMs Meet RAG:
Overcoming Challenges for Long Inputs in RAG", 2024, arXiv 2410.05983). Of the two ends, the better one here is the
last, beside the question: small models read what stands there best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from longreach.context.order import orders

T = TypeVar("T")


@orders.register("ends")
@dataclass(frozen=True)
class Ends:
    """The best last, the second first, the third last but one, and so on inwards."""

    def order(self, best_first: Sequence[T]) -> list[T]:
        return [*best_first[1::2], *best_first[::2][::-1]]
