"""One step of the engine, as attention sees it: which new tokens belong to which sequence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.rotation import Rotation
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence

if TYPE_CHECKING:
    from longreach.kv.segment import Segment


class Attends(Protocol):
    """What travels through the layers of a model: a step of the engine, or something that looks on."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> Part: ...


class Watcher(Protocol):
    """Looks at the queries of a sequence as they come by."""

    def see(self, layer: int, query: torch.Tensor, scores: Scores) -> None: ...


class Reader(Protocol):
    """Attends in its own way to what is in the pages, for one token: reads less than everything, in layers that see
    everything.

    `wanted` and `unbounded` are for kernels that choose pages by their bounds; see `SelectedPages`.
    """

    @property
    def wanted(self) -> int | None: ...

    def unbounded(self) -> torch.Tensor | None: ...

    def read(self, layer: int, query: torch.Tensor, position: int, scores: Scores, rotation: Rotation) -> Part: ...


@dataclass(frozen=True, slots=True)
class Row:
    """The new tokens `first .. first + count - 1` of a step: they follow `sequence`, whose tail has them from `entry`
    on, at positions from `position` on; at `positions`, which rise, where those are not one after the other: then they
    may stand before what the sequence has."""

    sequence: Sequence
    first: int
    count: int
    position: int
    entry: int
    watcher: Watcher | None = None
    reader: Reader | None = None
    positions: tuple[int, ...] | None = None

    @property
    def places(self) -> NDArray[np.int32]:
        """The position of each token."""
        if self.positions is None:
            return np.arange(self.position, self.position + self.count, dtype=np.int32)
        return np.array(self.positions, np.int32)

    @property
    def last(self) -> int:
        """The last token's position."""
        return self.position + self.count - 1 if self.positions is None else self.positions[-1]

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

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """Output `[tokens, heads, dim]` and log-sum-exp `[tokens, heads]` (float32) of `query [tokens, heads, dim]`;
        `key`, `value` `[tokens, kv_heads, dim]` are those of the new tokens."""
        if len(self.rows) == 1:  # nothing to cut and to put together: half of what one token costs beside its products
            return self._attend_row(layer, self.rows[0], query, key, value, scores)
        parts = []
        for row in self.rows:
            own = slice(row.first, row.first + row.count)
            parts.append(self._attend_row(layer, row, query[own], key[own], value[own], scores))
        return torch.cat([output for output, _ in parts]), torch.cat([lse for _, lse in parts])

    def _attend_row(
        self, layer: int, row: Row, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> Part:
        """`attend` for the tokens of one row."""
        self.write(layer, row, key, value)
        if row.watcher is not None:
            row.watcher.see(layer, query, scores)
        if row.reader is not None and row.count == 1 and scores.window is None:
            return row.reader.read(layer, query, row.position, scores, self.rotations[layer])
        return self.row(layer, row, query, key, value, scores)

    @abstractmethod
    def write(self, layer: int, row: Row, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put keys and values `[row.count, kv_heads, dim]` into the pages of the row's tail."""

    @abstractmethod
    def row(
        self, layer: int, row: Row, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> Part:
        """Attention of the new tokens of one sequence, which were written already."""

    @abstractmethod
    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> Part:
        """The same for tokens whose keys are not in the pages: `row.sequence` as it is, seen from `row.position` on."""


def begin(rows: Many[tuple[Sequence, Many[int]]]) -> list[Row]:
    """Count new tokens in, sequence by sequence; room was reserved. They stand one after the other."""
    found, first = [], 0
    for sequence, tokens in rows:
        position = sequence.position
        entry = sequence.append(tokens)
        found.append(Row(sequence, first, len(tokens), position, entry))
        first += len(tokens)
    return found
