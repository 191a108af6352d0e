"""One step of the engine, as attention sees it: which new tokens belong to which sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from longreach.attention.attend import Scores
from longreach.attention.rotation import Rotation
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence

if TYPE_CHECKING:
    from longreach.kv.segment import Segment


@dataclass(frozen=True, slots=True)
class Row:
    """The new tokens `first .. first + count - 1` of a step: they follow `sequence`, whose tail has them from `entry`
    on, at positions from `position` on."""

    sequence: Sequence
    first: int
    count: int
    position: int
    entry: int

    @property
    def tail(self) -> Segment:
        """The segment that they are written to."""
        return self.sequence.segments[-1]


class Step(ABC):
    """New tokens of several sequences on their way through the layers; they were counted in before (`begin`).

    In every layer, `attend` is called once: it writes keys and values to the pages, then attends.
    """

    def __init__(self, pool: PagePool, rotations: Many[Rotation], rows: Many[Row]) -> None:
        self.pool = pool
        self.rotations = rotations
        self.rows = rows

    @abstractmethod
    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output `[tokens, heads, dim]` and log-sum-exp `[tokens, heads]` (float32) of `query [tokens, heads, dim]`;
        `key`, `value` `[tokens, kv_heads, dim]` are those of the new tokens."""

    @abstractmethod
    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> tuple[torch.Tensor, torch.Tensor]:
        """The same for tokens whose keys are not in the pages: `row.sequence` as it is, seen from `row.position` on."""


def begin(rows: Many[tuple[Sequence, Many[int]]]) -> list[Row]:
    """Count new tokens in, sequence by sequence; room was reserved."""
    found, first = [], 0
    for sequence, tokens in rows:
        position = sequence.position
        entry = sequence.append(tokens)
        found.append(Row(sequence, first, len(tokens), position, entry))
        first += len(tokens)
    return found
