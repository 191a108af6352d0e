"""What several tokens attend to in many places, brought together: one attention a layer instead of one a place.

For a prompt that is made of passages which lie apart, were moved, and of which some tokens are hidden, looking after
each place costs more than copying what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.attention.step import Row
from longreach.kv.segment import Segment

PLACES = 4
"""Segments from which it is worth it."""


@dataclass(eq=False)
class Gathered:
    """The first `count` entries of each of some segments that have the same entries in every stream. `positions
    [entries]` are those where they are used, `shifts [entries]` how far that is from where keys were computed, `alive
    [entries]` which of them are seen at all, `places [tokens]` the positions of those who see."""

    segments: list[tuple[Segment, int]]
    positions: NDArray[np.int64]
    shifts: NDArray[np.int64]
    alive: NDArray[np.bool_]
    places: NDArray[np.int32]
    _angles: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    _masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row, before: bool) -> Gathered | None:
        """What the tokens of `row` see of its sequence, `before` them or with what its tail has of them; None where
        that is not worth it, or not the same in every stream."""
        segments = row.sequence.segments
        if row.count < 2 or len(segments) < PLACES:
            return None
        found: list[tuple[Segment, int]] = []
        for segment in segments:
            count = row.entry if before and segment is row.tail else len(segment)
            if not bool((segment.entries == len(segment)).all()) or bool((segment.table < 0).any()):
                return None
            if count:
                found.append((segment, count))
        positions = [_positions(segment, count) for segment, count in found]
        shifts = [np.full(count, segment.shift) for segment, count in found]
        alive = [np.ones(count, bool) if one.alive is None else one.alive[:count] for one, count in found]
        places = row.places
        return cls(found, np.concatenate(positions), np.concatenate(shifts), np.concatenate(alive), places)

    def bring(self, layer: int, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys, turned to where they are used, and values `[kv_heads, entries, dim]` in float32; None where the heads
        of a layer do not lie alike."""
        keys, values = [], []
        for segment, count in self.segments:
            for run in segment.runs(layer):
                some = min(count - run.first, run.room)
                if run.heads != segment.table.shape[1]:
                    return None
                if some > 0:
                    keys.append(run.keys[:, :some])
                    values.append(run.values[:, :some])
        together = torch.cat(keys, 1).float()
        if self.shifts.any() and len(rotation.frequencies):
            if id(rotation) not in self._angles:
                angles = torch.from_numpy(self.shifts)[:, None] * rotation.frequencies
                self._angles[id(rotation)] = angles.cos().float(), angles.sin().float()
            together = rotation.turn_by(together, *self._angles[id(rotation)])
        return together, torch.cat(values, 1).float()

    def mask(self, window: int | None) -> torch.Tensor | None:
        """`[tokens, entries]` (bool): which entry which token sees; None where each sees all."""
        if window not in self._masks:
            seen = (self.positions[None] <= self.places[:, None]) & self.alive[None]
            if window is not None:
                seen &= self.positions[None] > self.places[:, None] - window
            self._masks[window] = None if seen.all() else torch.from_numpy(seen)
        return self._masks[window]


def _positions(segment: Segment, count: int) -> NDArray[np.int64]:
    if segment.whole:
        return np.arange(segment.start, segment.start + count) + segment.shift
    size = segment.pool.page_size
    pages = segment.pool.index(segment.table[0, 0, : -(-count // size)])
    return segment.pool.positions[pages].reshape(-1)[:count].numpy().astype(np.int64) + segment.shift
