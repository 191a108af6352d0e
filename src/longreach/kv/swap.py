"""Pages in host memory, while others need the device's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.sequence import Sequence


@dataclass(slots=True)
class Swapped:
    """What the pages of a sequence held. Per segment: which places of its table had pages, and their `keys`, `values`
    `[pages, page_size, dim]` and `positions`."""

    parts: list[tuple[NDArray[np.bool_], torch.Tensor, torch.Tensor, torch.Tensor]]

    @property
    def pages(self) -> int:
        """How many pages are needed to bring it back."""
        return sum(len(keys) for _, keys, _, _ in self.parts)


def swap_out(sequence: Sequence) -> Swapped:
    """Copy what the pages of `sequence` hold into host memory and let go of them; its segments stay, without pages."""
    parts = []
    for segment in sequence.segments:
        pool, pages, had = segment.pool, segment.pages, segment.table >= 0
        where = pool.index(pages)
        keys, values, positions = (x[where].to("cpu", copy=True) for x in (pool.keys, pool.values, pool.positions))
        parts.append((had, keys, values, positions))
        segment.renumber(np.full_like(segment.table, -1))
        pool.release(pages)
    return Swapped(parts)


def swap_in(sequence: Sequence, swapped: Swapped) -> None:
    """Bring `sequence` back into pages of its own. Raises OutOfPagesError, and changes nothing, where there are too
    few."""
    pages = sequence.pool.take(swapped.pages)
    first = 0
    for segment, (had, *saved) in zip(sequence.segments, swapped.parts, strict=True):
        pool, own = segment.pool, pages[first : first + int(had.sum())]
        first += len(own)
        where = pool.index(own)
        for tensor, values in zip((pool.keys, pool.values, pool.positions), saved, strict=True):
            tensor[where] = values.to(tensor.device)
        table = np.full(had.shape, -1, np.int32)
        table[had] = own
        segment.renumber(table)
    sequence.version += 1
