"""Decoding steps as CUDA graphs: the network's kernels are launched once for all, and only their numbers change.

A graph is captured for a number of sequences and a width of their page tables, both rounded up. The tables stay on the
device; between two pages of its text a sequence changes nothing in them but where its next token goes.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.references import references_of, turns_of
from longreach.attention.step import Row
from longreach.attention.tables import Pages, References, Turns
from longreach.attention.triton_decode import decode
from longreach.attention.triton_write import write
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence
from longreach.model.bridge import Bridge

_TOKEN, _POSITION, _ENTRY = range(3)


class DecodeGraphs:
    """Runs steps in which every sequence has one new token."""

    MOST = 256
    """Sequences of a step; above, kernels take so long that launching them does not matter."""

    def __init__(self, bridge: Bridge, pool: PagePool) -> None:
        self._bridge = bridge
        self._pool = pool
        self._buffers: _Buffers | None = None
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def run(self, rows: Many[Row], tokens: Many[int]) -> torch.Tensor:
        """Logits `[rows, vocab]` after the new tokens; valid until the next run."""
        width = max(sum(segment.table.shape[2] for segment in row.sequence.segments) for row in rows)
        slots = max(len({0, *(segment.shift for segment in row.sequence.segments)}) for row in rows)
        buffers = self._room(len(rows), width, slots)
        buffers.update(rows, tokens)
        key = (_rounded(len(rows)), max(64, _rounded(width)))
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._bridge, self._pool, buffers, *key)
        graph = self._graphs[key]
        graph.graph.replay()
        return graph.logits[: len(rows)]

    def _room(self, rows: int, width: int, slots: int) -> _Buffers:
        known = self._buffers
        wanted = (max(_rounded(rows), 8), max(64, _rounded(width)), _rounded(slots))
        if known is None or any(want > have for want, have in zip(wanted, known.room, strict=True)):
            room = wanted if known is None else tuple(max(a, b) for a, b in zip(wanted, known.room, strict=True))
            self._graphs.clear()
            self._buffers = known = _Buffers(self._bridge, (room[0], room[1], room[2]))
        return known


@dataclass(slots=True)
class _Known:
    """What a row of the buffers holds of which sequence."""

    sequence: Sequence
    version: int
    segments: int
    columns: int

    @property
    def text(self) -> tuple[Sequence, int, int]:
        """What must be the same for more columns to be all that is new."""
        return self.sequence, self.version, self.segments


class _Buffers:
    """The tables of up to `room = (sequences, columns, slots)` on the device."""

    def __init__(self, bridge: Bridge, room: tuple[int, int, int]) -> None:
        self.room = room
        rows, width, slots = room
        layers, heads, device = bridge.shapes.layers, bridge.shapes.kv_heads, bridge.device
        shape = (layers, rows, heads, width)
        self.pages = torch.zeros(shape, dtype=torch.int32, device=device)
        self.slots = torch.zeros(shape, dtype=torch.int32, device=device)
        self.alive = torch.zeros(shape, dtype=torch.int64, device=device)
        self.counts = torch.zeros(shape[:3], dtype=torch.int32, device=device)
        self.given = torch.zeros((3, rows), dtype=torch.int32, device=device)
        self._host = torch.zeros((3, rows), dtype=torch.int32).pin_memory()
        self._known: list[_Known | None] = [None] * rows
        self._active = 0
        self._rotations = list(bridge.rotations)
        kinds = {rotation.frequencies.numpy().tobytes(): rotation for rotation in self._rotations}
        self._turns = {key: turns_of(rotation, [[0] * slots] * rows, device) for key, rotation in kinds.items()}

    def turns(self, layer: int, rows: int) -> Turns:
        """The turns of one layer for the first `rows` sequences."""
        own = self._turns[self._rotations[layer].frequencies.numpy().tobytes()]
        return Turns(own.cosines[:rows], own.sines[:rows], own.shifts[:rows])

    def update(self, rows: Many[Row], tokens: Many[int]) -> None:
        """Bring the tables up to date and hand over the new tokens."""
        grown: list[tuple[int, np.ndarray]] = []
        for at, row in enumerate(rows):
            known, sequence = self._known[at], row.sequence
            columns = -(-len(row.tail) // sequence.pool.page_size)
            now = _Known(sequence, sequence.version, len(sequence.segments), columns)
            if known is None or known.text != now.text:
                self._load(at, row)
            elif known.columns != columns:
                grown.append((at, row.tail.table[:, :, columns - 1]))
            self._known[at] = now
        if grown:
            self._grow(grown)
        for at in range(len(rows), self._active):
            self._known[at] = None
        if len(rows) < self._active:
            self.counts[:, len(rows) : self._active] = 0
        self._active = len(rows)
        size = rows[0].sequence.pool.page_size
        self._host[_TOKEN, : len(rows)] = torch.tensor(list(tokens), dtype=torch.int32)
        self._host[_POSITION, : len(rows)] = torch.tensor([row.position for row in rows], dtype=torch.int32)
        self._host[_ENTRY, : len(rows)] = torch.tensor([row.entry % size for row in rows], dtype=torch.int32)
        self.given.copy_(self._host)

    def _load(self, at: int, row: Row) -> None:
        found = references_of(row.sequence)
        width, device = found.pages.shape[2], self.pages.device
        for tensor, own in ((self.pages, found.pages), (self.slots, found.slots), (self.alive, found.alive)):
            tensor[:, at, :, :width] = torch.from_numpy(np.ascontiguousarray(own)).to(device)
        self.counts[:, at] = torch.from_numpy(found.counts).to(device)
        for key, turns in self._turns.items():
            rotation = next(kind for kind in self._rotations if kind.frequencies.numpy().tobytes() == key)
            fresh = turns_of(rotation, [found.shifts], device)
            turns.cosines[at, : fresh.slots], turns.sines[at, : fresh.slots] = fresh.cosines[0], fresh.sines[0]
            turns.shifts[at, : fresh.slots] = fresh.shifts[0]

    def _grow(self, grown: list[tuple[int, np.ndarray]]) -> None:
        """One page more for some sequences."""
        device = self.pages.device
        layers, _, heads = self.counts.shape
        at = torch.tensor([row for row, _ in grown], device=device)
        layer, head = torch.arange(layers, device=device)[:, None, None], torch.arange(heads, device=device)
        place = (layer, at[:, None], head, self.counts[:, at].long())
        self.pages[place] = torch.from_numpy(np.stack([pages for _, pages in grown], 1)).to(device)
        self.slots[place] = 0
        self.alive[place] = -1
        self.counts[:, at] += 1


class _Graph:
    """One captured step."""

    def __init__(self, bridge: Bridge, pool: PagePool, buffers: _Buffers, rows: int, width: int) -> None:
        step = _GraphStep(bridge, pool, buffers, rows, width)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # what is compiled or chosen at the first call must not be captured
                step.run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = step.run()


class _GraphStep:
    """A step whose every number lies in the buffers."""

    def __init__(self, bridge: Bridge, pool: PagePool, buffers: _Buffers, rows: int, width: int) -> None:
        self._bridge = bridge
        self._buffers = buffers
        self._rows = rows
        self._width = width
        self._pages = Pages(pool.keys, pool.values, pool.positions)
        self._all = torch.arange(rows, device=bridge.device)
        self._targets = torch.empty(0)

    def run(self) -> torch.Tensor:
        rows, buffers = self._rows, self._buffers
        counts = buffers.counts[:, :rows]
        last = buffers.pages[:, :rows].gather(3, (counts - 1).clamp_min(0).long()[..., None])[..., 0]
        self._targets = torch.where(counts > 0, last, -1)
        given = buffers.given[:, :rows].long()
        return self._bridge.run(given[_TOKEN], given[_POSITION], self, self._all)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        rows, buffers = self._rows, self._buffers
        positions, entries = buffers.given[_POSITION, :rows], buffers.given[_ENTRY, :rows]
        write(key.contiguous(), value.contiguous(), positions, self._targets[layer], entries, self._pages)
        whole = (buffers.pages, buffers.slots, buffers.alive)
        pages, slots, alive = (x[layer, :rows, :, : self._width] for x in whole)
        return decode(
            query.contiguous(),
            positions,
            self._pages,
            References(pages, slots, alive, buffers.counts[layer, :rows]),
            buffers.turns(layer, rows),
            scale=scores.scale,
            window=scores.window,
            softcap=scores.softcap,
        )


def _rounded(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()
