"""A step by the definition: pages gathered one after the other. For tests, and for devices without kernels of their
own."""

from __future__ import annotations

import torch

from longreach.attention.attend import PageRef, Scores, attend
from longreach.attention.merge import Part
from longreach.attention.step import Row, Step
from longreach.kv.segment import Segment
from longreach.kv.sequence import Sequence


class PlainStep(Step):
    """Writes and attends page by page, with `attend`."""

    def row(
        self, layer: int, row: Row, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores
    ) -> Part:
        positions = torch.from_numpy(row.places).to(query.device)
        return self._attend(layer, query, positions, row.sequence, scores)

    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> Part:
        positions = torch.full((row.count,), row.position, device=query.device)
        return self._attend(layer, query, positions, row.sequence, scores)

    def write(self, layer: int, row: Row, key: torch.Tensor, value: torch.Tensor) -> None:
        size, places = self.pool.page_size, row.places
        for at in range(row.count):
            column, entry = divmod(row.entry + at, size)
            pages = self.pool.index(row.tail.table[layer, :, column])
            self.pool.write((pages, entry), key[at], value[at])
            self.pool.positions[pages, entry] = int(places[at])

    def _attend(
        self, layer: int, query: torch.Tensor, positions: torch.Tensor, sequence: Sequence, scores: Scores
    ) -> Part:
        streams = [references(sequence, layer, head) for head in range(sequence.heads)]
        return attend(query, positions, self.pool, streams, scores, self.rotations[layer])


def references(sequence: Sequence, layer: int, head: int) -> list[PageRef]:
    """The pages of one stream of `sequence`."""
    return [ref for segment in sequence.segments for ref in _of_segment(segment, layer, head)]


def _of_segment(segment: Segment, layer: int, head: int) -> list[PageRef]:
    size, entries = segment.pool.page_size, int(segment.entries[layer, head])
    found = []
    for column in range(-(-entries // size)):
        page = int(segment.table[layer, head, column])
        if page < 0:
            continue  # it left the window
        filled = torch.arange(column * size, (column + 1) * size) < entries
        if segment.alive is not None:
            own = torch.from_numpy(segment.alive[column * size : (column + 1) * size])
            filled[: len(own)] &= own
        found.append(PageRef(page, segment.shift, filled.to(segment.pool.keys.device)))
    return found
