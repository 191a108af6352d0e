"""The KV of a chunk from tensors into pages, and back. Imported only where a model runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from longreach.kv.codec.opened import Opened
from longreach.kv.paged import paged, place_of
from longreach.kv.pool import EMPTY, PagePool
from longreach.kv.segment import Segment
from longreach.kv.store.entry import Entry
from longreach.kv.store.open_entry import OpenEntry


def place(
    pool: PagePool,
    tokens: Sequence[int],
    entry: Entry | OpenEntry,
    source: object = None,
    positions: Sequence[int] | None = None,
) -> Segment:
    """A segment in pages of its own with the KV of `tokens`; not a whole one where they stand at `positions`, which
    rise, and not one after the other. Raises OutOfPagesError, and takes none, where too few are free."""
    kv = entry.kv
    layers, heads, n, _ = kv.shapes[0]
    assert n == len(tokens) > 0
    segment = lay_out(pool, (layers, heads), tokens, entry.first, positions)
    segment.source, segment.outward = source, entry.outward
    bring(segment, kv, 0, layers)
    return segment


def lay_out(
    pool: PagePool,
    streams: tuple[int, int],
    tokens: Sequence[int],
    first: int,
    positions: Sequence[int] | None = None,
) -> Segment:
    """As `place` for so many layers and KV heads, without any keys and values yet."""
    layers, heads = streams
    segment, n = Segment.new(pool, layers, heads, first), len(tokens)
    segment.reserve(n)
    segment.append(tokens)
    columns = segment.table.shape[2]
    row = torch.full((columns * pool.page_size,), EMPTY, dtype=torch.int32, device=pool.positions.device)
    row[:n] = torch.arange(first, first + n) if positions is None else torch.tensor(positions)
    if positions is not None:
        segment.start, segment.whole = positions[-1] + 1 - n, False
    pool.positions[place_of(segment.table, pool.positions.device)] = row.view(columns, pool.page_size).repeat(
        layers * heads, 1
    )
    return segment


def bring(segment: Segment, kv: Opened, low: int, end: int) -> None:
    """Decode the layers `low .. end - 1` into the pages of a segment that has them all."""
    pool, pages, device = segment.pool, segment.table[low:end], segment.pool.keys.device
    if kv.straight is None or not kv.straight(low, end, pool.stored, pages):
        sides = (paged(x.to(device), pool.page_size) for x in kv.layers(low, end))
        pool.write(place_of(pages, device), *sides)


def gather(segment: Segment, seconds: float = 0.0) -> Entry:
    """A copy of the KV of a whole segment, on the device of its pages; in float32 where these are of 8 or 4 bits."""
    assert plain(segment)
    layers, heads, columns = segment.table.shape
    pool, n = segment.pool, len(segment)
    where = pool.index(segment.table.reshape(-1))
    keys, values = (
        source.view(layers, heads, columns * pool.page_size, -1)[:, :, :n].contiguous() for source in pool.read(where)
    )
    return Entry(keys, values, segment.start, seconds, segment.outward)


def plain(segment: Segment) -> bool:
    """Whether every stream has an entry for every token, and none is hidden."""
    return segment.whole and segment.alive is None and bool((segment.table >= 0).all()) and len(segment) > 0
