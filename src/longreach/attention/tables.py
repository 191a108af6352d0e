"""What a kernel is given: the pages, which of them each stream refers to, and how queries are turned for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longreach.errors import UnsupportedError
from longreach.kv.coding import channels_of
from longreach.kv.hadamard import signs
from longreach.kv.int4 import CODES
from longreach.kv.pool import PagePool


@dataclass(frozen=True, slots=True)
class Pages:
    """A pool's tensors: `keys [P, page, D]`, `values [P, page, V]` and `positions [P, page]` (int32, `EMPTY` of
    `kv.pool` where nothing was written), each contiguous. No entry may hold what is not a finite number, written or
    not. Keys and values of 8 or 4 bits (int8, uint8) have `key_scales` and `value_scales [P, page, 1]` beside them
    (`kv.coding`); those of 4 bits are of half the width, and spread (`kv.hadamard`)."""

    keys: torch.Tensor
    values: torch.Tensor
    positions: torch.Tensor
    key_scales: torch.Tensor | None = None
    value_scales: torch.Tensor | None = None

    @classmethod
    def of(cls, pool: PagePool) -> Pages:
        """Those of a pool."""
        return cls(pool.keys, pool.values, pool.positions, *pool.stored[2:])

    @property
    def size(self) -> int:
        """Entries of a page."""
        return self.keys.shape[1]

    @property
    def value_dim(self) -> int:
        """Channels of a value."""
        return channels_of(self.values)

    @property
    def scaled(self) -> bool:
        """Whether they are of 8 or 4 bits."""
        return self.key_scales is not None

    @property
    def packed(self) -> bool:
        """Whether they are of 4 bits."""
        return self.keys.dtype == CODES

    def signs(self, query: torch.Tensor) -> torch.Tensor | None:
        """What spreads a query in its own dtype, but for a factor, where keys are spread."""
        return signs(query.shape[-1], query.device, query.dtype) if self.packed else None

    def multiplied(self, query: torch.Tensor) -> torch.dtype:
        """What keys and values are multiplied in: as they are kept, or, of few bits, as the query is."""
        return query.dtype if self.scaled else self.keys.dtype


@dataclass(frozen=True, slots=True)
class References:
    """The pages of every stream: `pages [S, H, N]` and `slots [S, H, N]` (int32), `alive [S, H, N]` (int64, bit `t`
    set: entry `t` may be seen) and `counts [S, H]` (int32). What lies beyond a stream's count is not read. Any
    strides, but the last of the first three is 1. `N` may be more than any count: kernels read counts on the device."""

    pages: torch.Tensor
    slots: torch.Tensor
    alive: torch.Tensor
    counts: torch.Tensor

    def strides(self) -> tuple[int, ...]:
        """Of sequences and heads, in the order of the fields."""
        given = (self.pages, self.slots, self.alive, self.counts)
        return tuple(step for tensor in given for step in tensor.stride()[:2])


@dataclass(frozen=True, slots=True)
class Turns:
    """How queries are turned for the pages of a slot: `cosines`, `sines` `[S, slots, pairs]` (float32) and `shifts
    [S, slots]` (int32), contiguous.

    Channel `i` of a query becomes `q[i] * cos + q[i + pairs] * sin`, channel `i + pairs` becomes `q[i + pairs] * cos -
    q[i] * sin`; channels from `2 * pairs` on stay. An entry's position is the stored one plus the slot's shift. Slot 0
    turns nothing: where there is no other, `cosines` and `sines` are not read."""

    cosines: torch.Tensor
    sines: torch.Tensor
    shifts: torch.Tensor

    @property
    def slots(self) -> int:
        """How many slots each sequence has."""
        return self.shifts.shape[1]


def check(query: torch.Tensor, pages: Pages, references: References, turns: Turns) -> None:
    """Raise `UnsupportedError` where the kernels would read something else than is meant."""
    if pages.size not in (16, 32, 64):
        raise UnsupportedError(f"Pages hold {pages.size} entries; the kernels take 16, 32 or 64.")
    if query.shape[1] % references.pages.shape[1]:
        raise UnsupportedError(
            f"{query.shape[1]} query heads cannot be shared out over {references.pages.shape[1]} KV heads."
        )
    if any(tensor.stride(2) != 1 for tensor in (references.pages, references.slots, references.alive)):
        raise UnsupportedError("References of a stream must lie side by side: the last stride must be 1.")
    scales = [x for x in (pages.key_scales, pages.value_scales) if x is not None]
    given = (query, pages.keys, pages.values, pages.positions, *scales, turns.cosines, turns.sines, turns.shifts)
    for tensor in given:
        if not tensor.is_contiguous():
            raise UnsupportedError(
                f"A tensor of shape {list(tensor.shape)} is not contiguous; call contiguous() first."
            )
