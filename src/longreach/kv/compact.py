"""Dropping entries from the streams of a sequence: what stays moves together, and the pages that are left over are
free."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

import numpy as np
import torch

from longreach.kv.coding import numbers_of
from longreach.kv.pool import EMPTY
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence


def gathered(sequence: Sequence, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values, entry by entry, of the streams of one layer: `[kv_heads, entries, ...]`. All streams must have
    the same number of entries."""
    parts = []
    for segment in sequence.segments:
        where = torch.stack([slots(segment, layer, head) for head in range(sequence.heads)])
        stored = segment.pool.stored
        parts.append(numbers_of([_flat(tensor)[where.to(tensor.device)] for tensor in stored]))
    return torch.cat([keys for keys, _ in parts], 1), torch.cat([values for _, values in parts], 1)


def drop(sequence: Sequence, keep: Callable[[int], Many[torch.Tensor]]) -> int:
    """Keep in every layer the entries `keep(layer)` of each KV head: ascending indices into its streams. Pages that
    others hold too are left to them. Seals the sequence; returns how many pages became free."""
    freed = 0
    for layer in range(sequence.layers):
        for head, kept in enumerate(keep(layer)):
            first, indices = 0, kept.cpu()
            for segment in sequence.segments:
                entries = int(segment.entries[layer, head])
                own = indices[(indices >= first) & (indices < first + entries)] - first
                first += entries
                if len(own) < entries:
                    freed += _drop(segment, layer, head, own)
    for segment in sequence.segments:
        columns = int((segment.table >= 0).any((0, 1)).sum())
        segment.whole = bool((segment.entries == len(segment)).all())
        segment.renumber(np.ascontiguousarray(segment.table[:, :, :columns]))
    sequence.segments = [segment for segment in sequence.segments if segment.table.shape[2] or len(segment)]
    sequence.sealed = True
    sequence.version += 1
    return freed


def _drop(segment: Segment, layer: int, head: int, kept: torch.Tensor) -> int:
    pool = segment.pool
    source = slots(segment, layer, head)[kept].to(pool.keys.device)
    pages = segment.table[layer, head]
    held = pages[pages >= 0]
    needed = -(-len(kept) // pool.page_size)
    shared = bool((pool.counts[held] > 1).any())
    stay = pool.take(needed) if shared else held[:needed]
    at = np.arange(len(kept))
    target = torch.from_numpy(stay[at // pool.page_size].astype(np.int64) * pool.page_size + at % pool.page_size)
    target = target.to(source.device)
    for tensor in (*pool.stored, pool.positions):
        flat = _flat(tensor)
        flat[target] = flat[source]
    if len(kept) % pool.page_size:
        pool.positions[int(stay[-1]), len(kept) % pool.page_size :] = EMPTY
    freed = pool.release(held if shared else held[needed:])
    segment.table[layer, head] = -1
    segment.table[layer, head, :needed] = stay
    segment.entries[layer, head] = len(kept)
    return freed


def slots(segment: Segment, layer: int, head: int) -> torch.Tensor:
    """Where the entries of a stream lie in the pool, counted in entries."""
    size = segment.pool.page_size
    at = np.arange(int(segment.entries[layer, head]))
    return torch.from_numpy(segment.table[layer, head, at // size].astype(np.int64) * size + at % size)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1, *tensor.shape[2:])


def positions_of(segment: Segment, layer: int, head: int) -> torch.Tensor:
    """Where the entries of a stream stand, `[entries]`."""
    where = slots(segment, layer, head).to(segment.pool.positions.device)
    return segment.pool.positions.view(-1)[where] + segment.shift
