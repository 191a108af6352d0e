"""What several tokens attend to in many places, brought together: one attention a layer instead of one a place.

For a prompt that is made of passages which lie apart, were moved, and of which some tokens are hidden, looking after
each place costs more than copying what is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.attend import Scores
from longreach.attention.rotation import Rotation
from longreach.attention.seen import Seen
from longreach.attention.step import Row
from longreach.kv.segment import Segment

PLACES = 4
"""Segments from which it is worth it."""
TOKENS = 64
"""Tokens that attend together: each of them to no more than the last one sees."""


@dataclass(frozen=True)
class Block:
    """Some `tokens` of those who attend, and the `entries` that any of them sees; None of `seen` hides none of them."""

    tokens: slice
    entries: slice
    seen: Seen | None


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
    _blocks: dict[tuple[int | None, int], list[Block]] = field(default_factory=dict)
    _room: dict[tuple[str, int, int], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Row, before: bool) -> Gathered | None:
        """What the tokens of `row` see of its sequence, `before` them or with what its tail has of them; None where
        that is not the same in every stream."""
        found: list[tuple[Segment, int]] = []
        for segment in row.sequence.segments:
            count = row.entry if before and segment is row.tail else len(segment)
            if not bool((segment.entries == len(segment)).all()) or bool((segment.table < 0).any()):
                return None
            if count:
                found.append((segment, count))
        if not found:
            return None
        positions = [_positions(segment, count) for segment, count in found]
        shifts = [np.full(count, segment.shift) for segment, count in found]
        alive = [np.ones(count, bool) if one.alive is None else one.alive[:count] for one, count in found]
        return cls(found, np.concatenate(positions), np.concatenate(shifts), np.concatenate(alive), row.places)

    def bring(self, layer: int, rotation: Rotation) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys, turned to where they are used, and values `[kv_heads, entries, dim]` in float32. They are there until
        the next layer is brought."""
        stored = [part for segment, count in self.segments for part in _stored(segment, count, layer)]
        keys, values = ([part[which] for part in stored] for which in (0, 1))
        together = torch.cat(keys, 1, out=self._space("keys", keys[0]))
        if self.shifts.any() and len(rotation.frequencies):
            turned = self._space("turned", keys[0])
            rotation.turn_into(turned, together, *self._turns(rotation, together.device))
            together = turned
        return together, torch.cat(values, 1, out=self._space("values", values[0]))

    def blocks(self, window: int | None, group: int) -> list[Block]:
        """Who sees what in a layer of this window where each token has `group` rows of queries for each KV head. Who
        sees nothing is in none of them."""
        known = window, group
        if known not in self._blocks:
            self._blocks[known] = []
            for first in range(0, len(self.places), TOKENS):
                tokens = slice(first, min(first + TOKENS, len(self.places)))
                at = self.places[tokens, None]
                seen = (self.positions[None] <= at) & self.alive[None]
                if window is not None:
                    seen &= self.positions[None] > at - window
                reached = np.flatnonzero(seen.any(0))
                if len(reached):
                    entries = slice(int(reached[0]), int(reached[-1]) + 1)
                    mask = torch.from_numpy(seen[:, entries]).to(self._device)
                    self._blocks[known].append(Block(tokens, entries, Seen.where(mask, group)))
        return self._blocks[known]

    def seen_from(self, places: NDArray[np.int32]) -> Gathered:
        """The same for tokens at other `places`; what was brought is shared."""
        return replace(self, places=places, _blocks={})

    @property
    def _device(self) -> torch.device:
        return self.segments[0][0].pool.keys.device

    def _space(self, what: str, like: torch.Tensor) -> torch.Tensor:
        """Memory for all entries of a layer; taken once, since memory that was never used is slow to write to."""
        known = what, like.shape[0], like.shape[2]
        if known not in self._room:
            self._room[known] = like.new_empty(like.shape[0], len(self.positions), like.shape[2], dtype=torch.float32)
        return self._room[known]

    def _turns(self, rotation: Rotation, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if id(rotation) not in self._angles:
            angles = torch.from_numpy(self.shifts)[:, None] * rotation.frequencies.cpu()
            self._angles[id(rotation)] = angles.cos().float().to(device), angles.sin().float().to(device)
        return self._angles[id(rotation)]


def logits_of(query: torch.Tensor, keys: torch.Tensor, block: Block, scores: Scores) -> torch.Tensor:
    """What the softmax of a block's tokens, `query [tokens, heads, dim]`, is taken of, for the entries of the block in
    `keys [kv_heads, entries, dim]`: `[kv_heads, tokens * group, entries of the block]` in float32."""
    (tokens, rows), heads = query.shape[:2], len(keys)
    own = query.float().view(tokens, heads, rows // heads, -1).transpose(0, 1).flatten(1, 2)
    logits = (own @ keys[:, block.entries].transpose(1, 2)).mul_(scores.scale)
    if scores.softcap is not None:
        logits = logits.div_(scores.softcap).tanh_().mul_(scores.softcap)
    return logits if block.seen is None else logits.add_(block.seen.added[0])


def _stored(segment: Segment, count: int, layer: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first `count` keys and values of a layer `[kv_heads, entries, dim]`, in order, part after part."""
    heads, columns = segment.table.shape[1:]
    runs = segment.runs(layer)
    if all(run.heads == heads for run in runs):
        rooms = [(run, min(count - run.first, run.room)) for run in runs]
        return [run.read(0, room) for run, room in rooms if room > 0]
    pages = segment.pool.index(segment.table[layer].reshape(-1))
    both = (x.view(heads, columns * segment.pool.page_size, -1) for x in segment.pool.read(pages))
    keys, values = (x[:, :count] for x in both)
    return [(keys, values)]


def _positions(segment: Segment, count: int) -> NDArray[np.int64]:
    if segment.whole:
        return np.arange(segment.start, segment.start + count) + segment.shift
    size = segment.pool.page_size
    pages = segment.pool.index(segment.table[0, 0, : -(-count // size)])
    return segment.pool.positions[pages].reshape(-1)[:count].cpu().numpy().astype(np.int64) + segment.shift
