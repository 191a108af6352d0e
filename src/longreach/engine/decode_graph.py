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
from longreach.attention.triton_bounds import bound
from longreach.attention.triton_decode import decode
from longreach.attention.triton_select import decode_selected
from longreach.attention.triton_shared import MOST_QUERIES, SharedTables
from longreach.attention.triton_step import prepare
from longreach.attention.triton_write import rows_of, write
from longreach.engine import decode_share
from longreach.engine.decode_share import Group, group_of
from longreach.engine.sampling import greedy
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence
from longreach.model.bridge import Bridge

_TOKEN, _POSITION, _ENTRY, _COLUMNS, _WANTED = range(5)
_SAMPLED = -1
"""In place of a token: the one that the step before chose."""
_NOBODY = -(1 << 20)
"""In place of the number of columns of a tail: the row has no sequence."""
_BUFFERS = 3
"""Copies of what the host writes and reads: two steps may be on their way while a third is prepared."""


@dataclass(slots=True)
class Flight:
    """A step on its way: `rows`, and the greedy tokens that it chooses for them."""

    rows: Many[Row]
    _chosen: torch.Tensor
    _done: torch.cuda.Event | None

    def tokens(self) -> list[int | None]:
        """Wait for the tokens; None where the logits were not numbers."""
        if self._done is not None:
            self._done.synchronize()
        return [token if token >= 0 else None for token in self._chosen.tolist()]

    def fill(self, tokens: Many[int | None]) -> None:
        """Say which tokens, unknown when it was launched, the step has read."""
        for row, token in zip(self.rows, tokens, strict=True):
            if len(row.tail) > row.entry and token is not None:
                row.tail.tokens[row.entry] = token


class DecodeGraphs:
    """Runs steps in which every sequence has one new token."""

    MOST = 256
    """Sequences of a step; above, kernels take so long that launching them does not matter."""

    def __init__(self, bridge: Bridge, pool: PagePool) -> None:
        self._bridge = bridge
        self._pool = pool
        self._buffers: _Buffers | None = None
        self._graphs: dict[tuple[int, int, int, int], _Graph] = {}
        self._grouped: tuple[list[tuple[Sequence, int, int]], Group] = [], Group()
        self._turn = 0
        self._chosen: list[torch.Tensor] = []
        self.last: _Graph | None = None

    def run(self, rows: Many[Row], tokens: Many[int]) -> torch.Tensor:
        """Logits `[rows, vocab]` after the new tokens; valid until the next run."""
        return self._replay(rows, tokens).logits[: len(rows)]

    def launch(self, rows: Many[Row], tokens: Many[int] | None) -> Flight:
        """Begin a step that chooses greedily; nothing is waited for. Without `tokens`, the new ones are those that the
        last launch, of the same rows, chooses."""
        graph = self._replay(rows, [_SAMPLED] * len(rows) if tokens is None else tokens)
        if not self._chosen or self._chosen[0].numel() < len(rows):
            self._chosen = [torch.zeros(max(64, len(rows)), dtype=torch.int32).pin_memory() for _ in range(_BUFFERS)]
        chosen = self._chosen[self._turn % _BUFFERS][: len(rows)]
        chosen.copy_(graph.chosen[: len(rows)], non_blocking=True)
        done = None
        if self._pool.keys.is_cuda:
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
        return Flight(rows, chosen, done)

    def _replay(self, rows: Many[Row], tokens: Many[int]) -> _Graph:
        group = self._group(rows)
        widths = [sum(segment.table.shape[2] for segment in row.sequence.segments) for row in rows]
        slots = max(len({0, *(segment.shift for segment in row.sequence.segments)}) for row in rows)
        buffers = self._room(len(rows), max(widths), slots)
        self._turn += 1
        buffers.update(rows, tokens, self._turn % _BUFFERS, group)
        wanted = max((row.reader.wanted or 0) if row.reader is not None else 0 for row in rows)
        if wanted:
            prepare(rows, Pages.of(self._pool), self._pool.bounds)
        columns = max(64, _rounded(max(width - group.cut(at) for at, width in enumerate(widths))))
        shared = max(64, _rounded(group.columns)) if group.members else 0
        key = (_rounded(len(rows)), columns, min(_rounded(wanted), columns) if wanted else 0, shared)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._bridge, self._pool, buffers, *key)
        self.last = self._graphs[key]
        self.last.graph.replay()
        return self.last

    def _group(self, rows: Many[Row]) -> Group:
        """Who shares what; it is looked for where sequences come, go or exchange pages, and not while they grow."""
        shapes = self._bridge.shapes
        queries = shapes.group * _rounded(len(rows))
        if queries > MOST_QUERIES or any(window is not None for window in shapes.windows):
            return Group()
        texts = [(row.sequence, row.sequence.version, len(row.sequence.segments)) for row in rows]
        if self._grouped[0] != texts:
            self._grouped = texts, group_of(rows, decode_share.WORTH)
        return self._grouped[1]

    def _room(self, rows: int, width: int, slots: int) -> _Buffers:
        known = self._buffers
        wanted = (max(_rounded(rows), 8), max(64, _rounded(width)), _rounded(slots))
        if known is None or any(want > have for want, have in zip(wanted, known.room, strict=True)):
            room = wanted if known is None else tuple(max(a, b) for a, b in zip(wanted, known.room, strict=True))
            if self._graphs and self._pool.keys.is_cuda:
                torch.cuda.synchronize()  # a step may be on its way
            self._graphs.clear()
            fresh = _Buffers(self._bridge, (room[0], room[1], room[2]))
            if known is not None:
                fresh.sampled[: known.room[0]] = known.sampled
            self._buffers = known = fresh
        return known


@dataclass(slots=True)
class _Known:
    """What a row of the buffers holds of which sequence: of its tail, `columns` pages; its first `cut` are shared."""

    sequence: Sequence
    version: int
    segments: int
    cut: int
    columns: int

    @property
    def text(self) -> tuple[Sequence, int, int, int]:
        """What must be the same for more columns to be all that is new."""
        return self.sequence, self.version, self.segments, self.cut


class _Buffers:
    """The tables of up to `room = (sequences, columns, slots)` on the device.

    A table has all pages that the tail has room in; how many of them are in use is told with each token.
    """

    def __init__(self, bridge: Bridge, room: tuple[int, int, int]) -> None:
        self.room = room
        rows, width, slots = room
        layers, heads, device = bridge.shapes.layers, bridge.shapes.kv_heads, bridge.device
        shape = (layers, rows, heads, width)
        self.pages = torch.zeros(shape, dtype=torch.int32, device=device)
        self.slots = torch.zeros(shape, dtype=torch.int32, device=device)
        self.alive = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.sealed = torch.zeros(shape[:3], dtype=torch.int32, device=device)
        self.given = torch.zeros((5, rows), dtype=torch.int32, device=device)
        self.sampled = torch.zeros(rows, dtype=torch.int32, device=device)
        self.shared = SharedTables(layers, heads, rows, width, device)
        self._together: tuple[Group, object] = Group(), None
        self._host = [torch.zeros((5, rows), dtype=torch.int32).pin_memory() for _ in range(_BUFFERS)]
        self._sealed = np.zeros(shape[:3], np.int64)
        self._known: list[_Known | None] = [None] * rows
        self._active = 0
        self._rotations = list(bridge.rotations)
        kinds = {rotation.frequencies.numpy().tobytes(): rotation for rotation in self._rotations}
        self._turns = {key: turns_of(rotation, [[0] * slots] * rows, device) for key, rotation in kinds.items()}

    def turns(self, layer: int, rows: int) -> Turns:
        """The turns of one layer for the first `rows` sequences."""
        own = self._turns[self._rotations[layer].frequencies.numpy().tobytes()]
        return Turns(own.cosines[:rows], own.sines[:rows], own.shifts[:rows])

    def update(self, rows: Many[Row], tokens: Many[int], turn: int, group: Group) -> None:
        """Bring the tables up to date and hand over the new tokens, by way of the host's copy number `turn`."""
        grown: list[tuple[int, np.ndarray, int]] = []
        size = rows[0].sequence.pool.page_size
        used = []
        for at, row in enumerate(rows):
            known, sequence = self._known[at], row.sequence
            columns = row.tail.table.shape[2]
            now = _Known(sequence, sequence.version, len(sequence.segments), group.cut(at), columns)
            if known is None or known.text != now.text:
                self._load(at, row, group)
            elif known.columns != columns:
                grown.append((at, row.tail.table[:, :, known.columns :], known.columns))
            self._known[at] = now
            used.append(-(-len(row.tail) // size))
        if grown:
            self._grow(grown)
        self._share(rows, group)
        for at in range(len(rows), self._active):
            self._known[at] = None
        self._active = len(rows)
        host = self._host[turn]
        wanted = [row.reader.wanted if row.reader is not None else 0 for row in rows]
        given = [tokens, [row.position for row in rows], [row.entry % size for row in rows], used, wanted]
        host[_COLUMNS] = _NOBODY
        host[:, : len(rows)] = torch.tensor([list(each) for each in given], dtype=torch.int32)
        self.given.copy_(host, non_blocking=True)

    def _share(self, rows: Many[Row], group: Group) -> None:
        """Put what `group` shares into its tables."""
        leader = self._known[group.members[0]] if group.members else None
        now = group, leader.text if leader else None
        if now == self._together:
            return
        self._together, shared = now, self.shared
        shared.members.fill_(False)
        if group.members:
            device = self.pages.device
            found = references_of(rows[group.members[0]].sequence, reserved=True)
            for tensor, own in ((shared.pages, found.pages), (shared.alive, found.alive)):
                first = torch.from_numpy(np.ascontiguousarray(own[:, :, : group.columns]))
                tensor[:, :, : group.columns] = first.to(device)
            shared.members[torch.tensor(group.members, device=device)] = True
        shared.count.fill_(group.columns)

    def _load(self, at: int, row: Row, group: Group) -> None:
        found = references_of(row.sequence, reserved=True)
        cut, device = group.cut(at), self.pages.device
        width = found.pages.shape[2] - cut
        for tensor, own in ((self.pages, found.pages), (self.slots, found.slots), (self.alive, found.alive)):
            tensor[:, at, :, :width] = torch.from_numpy(np.ascontiguousarray(own[:, :, cut:])).to(device)
        self.slots[:, at, :, width:] = 0
        self.alive[:, at, :, width:] = -1
        self._sealed[:, at] = found.counts - row.tail.table.shape[2] - cut
        self.sealed[:, at] = torch.from_numpy(self._sealed[:, at]).to(device)
        for key, turns in self._turns.items():
            rotation = next(kind for kind in self._rotations if kind.frequencies.numpy().tobytes() == key)
            fresh = turns_of(rotation, [found.shifts], device)
            turns.cosines[at, : fresh.slots], turns.sines[at, : fresh.slots] = fresh.cosines[0], fresh.sines[0]
            turns.shifts[at, : fresh.slots] = fresh.shifts[0]

    def _grow(self, grown: list[tuple[int, np.ndarray, int]]) -> None:
        """More pages for the tails of some sequences: `(row, pages [layers, heads, new], how many were known)`."""
        layers, rows, heads, width = self.pages.shape
        layer, head = np.arange(layers)[:, None, None], np.arange(heads)[:, None]
        places = []
        for at, pages, known in grown:
            first = ((layer * rows + at) * heads + head) * width + self._sealed[:, at][..., None] + known
            places.append((first + np.arange(pages.shape[2])).ravel())
        place = torch.from_numpy(np.concatenate(places)).to(self.pages.device)
        new = torch.from_numpy(np.concatenate([pages.ravel() for _, pages, _ in grown])).to(self.pages.device)
        self.pages.view(-1)[place] = new


class _Graph:
    """One captured step."""

    def __init__(self, bridge: Bridge, pool: PagePool, buffers: _Buffers, *key: int) -> None:
        self._step = step = _GraphStep(bridge, pool, buffers, *key)  # kept: the graph reads its tensors
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # what is compiled or chosen at the first call must not be captured
                step.run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits, self.chosen = step.run()


class _GraphStep:
    """A step whose every number lies in the buffers. `most`: how many pages of each stream are read, 0 for all;
    `shared`: how many of those that sequences share, 0 where they share none."""

    def __init__(
        self, bridge: Bridge, pool: PagePool, buffers: _Buffers, rows: int, width: int, most: int, shared: int
    ) -> None:
        self._bridge = bridge
        self._buffers = buffers
        self._rows = rows
        self._width = width
        self._most = most
        self._shared = shared
        self._pool = pool
        self._pages = Pages.of(pool)
        self._all = torch.arange(rows, device=bridge.device)
        self._counts = self._targets = torch.empty(0)

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[rows, vocab]` and the greedy tokens `[rows]`, -1 where the logits are not numbers."""
        rows, buffers = self._rows, self._buffers
        given = buffers.given[:, :rows]
        self._counts = (buffers.sealed[:, :rows] + given[_COLUMNS][:, None]).clamp_min(0)
        last = buffers.pages[:, :rows].gather(3, (self._counts - 1).clamp_min(0).long()[..., None])[..., 0]
        self._targets = torch.where(self._counts > 0, last, -1)
        sampled = buffers.sampled[:rows]
        tokens = torch.where(given[_TOKEN] == _SAMPLED, sampled, given[_TOKEN]).clamp_min(0)
        logits = self._bridge.run(tokens.long(), given[_POSITION].long(), self, self._all)
        chosen = greedy(logits)
        sampled.copy_(chosen)
        return logits, sampled

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        rows, buffers = self._rows, self._buffers
        positions, entries = buffers.given[_POSITION, :rows], buffers.given[_ENTRY, :rows]
        write(rows_of(key), rows_of(value), positions, self._targets[layer], entries, self._pages)
        whole = (buffers.pages, buffers.slots, buffers.alive)
        pages, slots, alive = (x[layer, :rows, :, : self._width] for x in whole)
        references, turns = References(pages, slots, alive, self._counts[layer]), buffers.turns(layer, rows)
        query = query.contiguous()
        if self._most and scores.window is None:
            bounds, wanted = self._pool.bounds, buffers.given[_WANTED, :rows]
            bound(self._pages, self._targets[layer].flatten(), bounds)
            return decode_selected(query, positions, self._pages, bounds, references, turns, wanted, self._most, scores)
        own = decode(
            query,
            positions,
            self._pages,
            references,
            turns,
            scale=scores.scale,
            window=scores.window,
            softcap=scores.softcap,
        )
        return buffers.shared.attend(layer, self._shared, query, own, self._pages, scores) if self._shared else own


def _rounded(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()
