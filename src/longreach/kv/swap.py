"""Pages in host memory, while others need the device's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.kv.sequence import Sequence


@dataclass(slots=True)
class Swapped:
    """What the pages of a sequence held. Per segment: which places of its table had pages, and for these what the pool
    had stored, `[pages, page_size, ..]` each, the positions last."""

    parts: list[tuple[NDArray[np.bool_], list[torch.Tensor]]]

    @property
    def pages(self) -> int:
        """How many pages are needed to bring it back."""
        return sum(int(had.sum()) for had, _ in self.parts)


def swap_out(sequence: Sequence) -> Swapped:
    """Copy what the pages of `sequence` hold into host memory and let go of them; its segments stay, without pages."""
    parts = []
    for segment in sequence.segments:
        pool, pages, had = segment.pool, segment.pages, segment.table >= 0
        where = pool.index(pages)
        parts.append((had, [x[where].to("cpu", copy=True) for x in (*pool.stored, pool.positions)]))
        segment.renumber(np.full_like(segment.table, -1))
        pool.release(pages)
    return Swapped(parts)


def swap_in(sequence: Sequence, swapped: Swapped) -> None:
    """Bring `sequence` back into pages of its own. Raises OutOfPagesError, and changes nothing, where there are too
    few."""
    pages = sequence.pool.take(swapped.pages)
    first = 0
    for segment, (had, saved) in zip(sequence.segments, swapped.parts, strict=True):
        pool, own = segment.pool, pages[first : first + int(had.sum())]
        first += len(own)
        where = pool.index(own)
        for tensor, held in zip((*pool.stored, pool.positions), saved, strict=True):
            tensor[where] = held.to(tensor.device)
        table = np.full(had.shape, -1, np.int32)
        table[had] = own
        segment.renumber(table)
    sequence.version += 1
