"""The order of passages in a prompt.

Language models read the ends of a long prompt better than its middle. Jin et al., "Long-Context LLMs Meet RAG:
Overcoming Challenges for Long Inputs in RAG", 2024, arXiv 2410.05983, place the best passages at both ends and the weakest
in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def ends_first(best_first: Sequence[T]) -> list[T]:
    """A permutation with the best at the beginning, the second at the end, the third second, and so on inwards."""
    return [*best_first[::2], *best_first[1::2][::-1]]
