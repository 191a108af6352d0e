"""A step on CUDA: all sequences at once, by the kernels."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.references import SequenceReferences, references_of, turns_of
from longreach.attention.rotation import Rotation
from longreach.attention.step import Row, Step
from longreach.attention.tables import Pages, References, Turns
from longreach.attention.triton_bounds import bound
from longreach.attention.triton_prefill import prefill
from longreach.attention.triton_select import decode_selected
from longreach.attention.triton_write import rows_of, write
from longreach.kv.pool import PagePool
from longreach.kv.sequence import Sequence


class TritonStep(Step):
    """Tables of all layers go to the device once; each layer is two kernels and the merge of their parts."""

    def __init__(self, pool: PagePool, rotations: Many[Rotation], rows: Many[Row]) -> None:
        super().__init__(pool, rotations, rows)
        self._device = pool.keys.device
        self._pages = Pages.of(pool)
        self._views: dict[int, Tables] = {}
        if rows:
            positions = np.concatenate([row.places for row in rows])
            self._positions = torch.from_numpy(positions).to(self._device)
            pages, entries = zip(*(_targets(row, pool.page_size) for row in rows), strict=True)
            self._targets = torch.from_numpy(np.concatenate(pages, 1)).to(self._device)
            self._entries = torch.from_numpy(np.concatenate(entries)).to(self._device)
            selecting = [row for row in rows if selects(row)]
            self._others = [row for row in rows if row.reader is not None and row.count == 1 and not selects(row)]
            whole = [row for row in rows if row not in selecting and row not in self._others]
            self._groups = [self._group(some) for some in (whole, selecting) if some]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        write(rows_of(key), rows_of(value), self._positions, self._targets[layer], self._entries, self._pages)
        query = query.contiguous()
        for row in self.rows:
            if row.watcher is not None:
                row.watcher.see(layer, query[row.first : row.first + row.count], scores)
        if len(self._groups) == 1 and not self._others:
            return self._group_part(layer, self._groups[0], query, scores)
        output, lse = None, query.new_empty(query.shape[:2], dtype=torch.float32)
        for group in self._groups:
            part = self._group_part(layer, group, query[group.tokens], scores)
            if output is None:
                output = query.new_empty(*query.shape[:2], part[0].shape[2])
            output[group.tokens], lse[group.tokens] = part
        for row in self._others:
            assert row.reader is not None
            own = slice(row.first, row.first + 1)
            part = row.reader.read(layer, query[own], row.position, scores, self.rotations[layer])
            if output is None:
                output = query.new_empty(*query.shape[:2], part[0].shape[2])
            output[own], lse[own] = part
        assert output is not None
        return output, lse

    def _group(self, rows: Many[Row]) -> _Group:
        tokens = np.concatenate([np.arange(row.first, row.first + row.count) for row in rows])
        starts = np.cumsum([0, *(row.count for row in rows)], dtype=np.int32)
        wanted = None
        if selects(rows[0]):
            wanted = torch.tensor([row.reader.wanted for row in rows if row.reader], dtype=torch.int32)
            prepare(rows, self._pages, self.pool.bounds)
        found = torch.from_numpy(tokens).to(self._device)
        tables = Tables([row.sequence for row in rows], self.rotations, self._device)
        return _Group(tables, found, self._positions[found], torch.from_numpy(starts).to(self._device), wanted)

    def _group_part(self, layer: int, group: _Group, query: torch.Tensor, scores: Scores) -> Part:
        if group.wanted is None or scores.window is not None:
            return self._attend(layer, group.tables, query, group.positions, group.starts, scores)
        bound(self._pages, self._targets[layer][group.tokens].flatten(), self.pool.bounds)
        references, turns = group.tables.references(layer), group.tables.turns(layer)
        wanted, most = group.wanted.to(self._device), int(group.wanted.max())
        return decode_selected(
            query, group.positions, self._pages, self.pool.bounds, references, turns, wanted, most, scores
        )

    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> Part:
        if id(row.sequence) not in self._views:
            self._views[id(row.sequence)] = Tables([row.sequence], self.rotations, self._device)
        positions = torch.full((row.count,), row.position, dtype=torch.int32, device=self._device)
        starts = torch.tensor([0, row.count], dtype=torch.int32, device=self._device)
        return self._attend(layer, self._views[id(row.sequence)], query.contiguous(), positions, starts, scores)

    def _attend(
        self,
        layer: int,
        tables: Tables,
        query: torch.Tensor,
        positions: torch.Tensor,
        starts: torch.Tensor,
        scores: Scores,
    ) -> Part:
        return prefill(
            query,
            positions,
            starts,
            self._pages,
            tables.references(layer),
            tables.turns(layer),
            scale=scores.scale,
            window=scores.window,
            softcap=scores.softcap,
        )

    def write(self, layer: int, row: Row, key: torch.Tensor, value: torch.Tensor) -> None:
        raise NotImplementedError  # all rows are written at once

    def row(
        self, layer: int, row: Row, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> Part:
        raise NotImplementedError  # all rows attend at once


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows that attend alike: the tables of their sequences, which of the step's `tokens` are theirs, at which
    positions, and where each row begins among them. `wanted`: how many pages of each stream are read, None for all."""

    tables: Tables
    tokens: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    wanted: torch.Tensor | None


def selects(row: Row) -> bool:
    """Whether kernels choose the pages that the row reads."""
    return row.reader is not None and row.count == 1 and row.reader.wanted is not None


def prepare(rows: Many[Row], pages: Pages, bounds: torch.Tensor) -> None:
    """Find the bounds of the pages that were written before their sequence began to select."""
    for row in rows:
        missing = row.reader.unbounded() if row.reader is not None else None
        if missing is not None:
            bound(pages, missing, bounds)


class Tables:
    """The references and turns of some sequences, for all layers, on the device."""

    def __init__(self, sequences: Many[Sequence], rotations: Many[Rotation], device: torch.device) -> None:
        found = [references_of(sequence) for sequence in sequences]
        width = max(1, *(own.pages.shape[2] for own in found), 1)
        self._pages, self._slots, self._alive = (
            torch.from_numpy(_stacked([getattr(own, name) for own in found], width)).to(device)
            for name in ("pages", "slots", "alive")
        )
        self._counts = torch.from_numpy(np.stack([own.counts for own in found], 1)).to(device)
        self._turns = turns_by_layer(rotations, found, device)

    def references(self, layer: int) -> References:
        """Those of one layer."""
        return References(self._pages[layer], self._slots[layer], self._alive[layer], self._counts[layer])

    def turns(self, layer: int) -> Turns:
        """Those of one layer."""
        return self._turns[layer]


def turns_by_layer(rotations: Many[Rotation], found: Many[SequenceReferences], device: torch.device) -> list[Turns]:
    """The turns of every layer; layers with the same rotation share theirs."""
    known: dict[bytes, Turns] = {}
    turns = []
    for rotation in rotations:
        key = rotation.frequencies.numpy().tobytes()
        if key not in known:
            known[key] = turns_of(rotation, [own.shifts for own in found], device)
        turns.append(known[key])
    return turns


def _stacked(parts: Many[np.ndarray], width: int) -> np.ndarray:
    """`[layers, sequences, kv_heads, width]`, what is missing filled with zeros."""
    layers, heads, _ = parts[0].shape
    whole = np.zeros((layers, len(parts), heads, width), parts[0].dtype)
    for at, part in enumerate(parts):
        whole[:, at, :, : part.shape[2]] = part
    return whole


def _targets(row: Row, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the new tokens go: pages `[layers, tokens, kv_heads]` and entries `[tokens]` (int32)."""
    at = np.arange(row.entry, row.entry + row.count)
    pages = row.tail.table[:, :, at // size].transpose(0, 2, 1)
    return np.ascontiguousarray(pages), (at % size).astype(np.int32)
