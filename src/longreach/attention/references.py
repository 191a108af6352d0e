"""From sequences to what kernels are given: which pages each stream refers to, and how queries are turned for them."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from longreach.attention.rotation import Rotation
from longreach.attention.tables import Turns
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence

ALL_ALIVE = np.int64(-1)


@dataclass
class SequenceReferences:
    """The page references of one sequence: `pages`, `slots` (int32) and `alive` (int64) `[layers, kv_heads, columns]`,
    `counts [layers, kv_heads]` (int32). `shifts` are those of its slots, the first of them 0."""

    pages: NDArray[np.int32]
    slots: NDArray[np.int32]
    alive: NDArray[np.int64]
    counts: NDArray[np.int32]
    shifts: list[int]


def references_of(sequence: Sequence, reserved: bool = False) -> SequenceReferences:
    """All pages of `sequence` that have entries, and those that its tail has room in where `reserved`; the tail shows
    whatever is written to it later."""
    shifts = [0]
    parts: list[tuple[NDArray[np.int32], int, NDArray[np.int64]]] = []
    for segment in sequence.segments:
        if segment.shift not in shifts:
            shifts.append(segment.shift)
        grows = not sequence.sealed and segment is sequence.segments[-1]
        columns = -(-int(segment.entries.max(initial=0)) // segment.pool.page_size)
        if grows and reserved:
            columns = segment.table.shape[2]
        table = segment.table[:, :, :columns]
        parts.append((table, shifts.index(segment.shift), _alive(segment, columns, grows)))
    if not parts:
        none = np.zeros((sequence.layers, sequence.heads, 0), np.int32)
        return SequenceReferences(none, none, none.astype(np.int64), np.zeros(none.shape[:2], np.int32), shifts)
    pages = np.concatenate([table for table, _, _ in parts], 2)
    slots = np.concatenate([np.full(table.shape, slot, np.int32) for table, slot, _ in parts], 2)
    alive = np.concatenate([bits for _, _, bits in parts], 2)
    there = pages >= 0
    if not there.all():
        order = np.argsort(~there, axis=2, kind="stable")
        pages, slots, alive = (np.take_along_axis(x, order, 2) for x in (pages, slots, alive))
    return SequenceReferences(pages, slots, alive, there.sum(2).astype(np.int32), shifts)


def turns_of(rotation: Rotation, shifts: Many[Many[int]], device: torch.device) -> Turns:
    """Turns for sequences with these `shifts` a slot."""
    slots = max(len(own) for own in shifts)
    padded = torch.tensor([[*own, *[0] * (slots - len(own))] for own in shifts])
    # A layer without positions turns one pair by nothing: kernels want one.
    frequencies = rotation.frequencies if len(rotation.frequencies) else torch.zeros(1, dtype=torch.float64)
    angles = padded[..., None].double() * frequencies
    cosines, sines = (x.float().contiguous().to(device) for x in (angles.cos(), angles.sin()))
    return Turns(cosines, sines, padded.int().to(device))


def _alive(segment: Segment, columns: int, grows: bool) -> NDArray[np.int64]:
    """Which entries of each page may be seen, as bits `[layers, kv_heads, columns]`."""
    size = segment.pool.page_size
    if segment.alive is not None:
        padded = np.zeros(columns * size, np.uint64)
        padded[: len(segment.alive)] = segment.alive
        bits = (padded.reshape(columns, size) << np.arange(size, dtype=np.uint64)).sum(1, dtype=np.uint64)
        return np.broadcast_to(bits.view(np.int64), (*segment.entries.shape, columns))
    if grows:
        return np.full((*segment.entries.shape, columns), ALL_ALIVE)
    filled = np.clip(segment.entries[..., None] - np.arange(columns) * size, 0, size).astype(np.uint64)
    ones = np.where(filled == 64, ~np.uint64(0), (np.uint64(1) << (filled % 64)) - np.uint64(1))
    return ones.view(np.int64)
