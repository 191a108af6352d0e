"""A step on a processor that decodes: one new token of each sequence, attended to by one compiled kernel."""

from __future__ import annotations

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part
from longreach.attention.numba_decode import Line, decode
from longreach.attention.step import Row
from longreach.attention.strided_step import StridedStep, write_positions
from longreach.kv.segment import Segment


class NumbaStep(StridedStep):
    """As `StridedStep`; where every sequence has one new token, a compiled kernel writes and attends."""

    def each(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        selects = scores.window is None and any(row.reader for row in self.rows)
        if selects or scores.softcap is not None or any(row.count > 1 or row.watcher for row in self.rows):
            return super().each(layer, query, key, value, scores)
        own, keys, values = (x.float().contiguous() for x in (query, key, value))
        turned = {0: own}  # by their shift; kept until the kernel has read them
        lines: list[Line] = []
        for row in self.rows:
            found = self._lines(layer, row, turned, scores.window)
            if found is None:
                return super().each(layer, query, key, value, scores)
            lines += found
        if layer == 0:
            for row in self.rows:
                write_positions(self.pool, row)
        output, lse = decode(lines, own, keys, values, scores.scale, self.pool.stored)
        return output.to(query.dtype), lse

    def _lines(self, layer: int, row: Row, turned: dict[int, torch.Tensor], window: int | None) -> list[Line] | None:
        """What the kernel is told of the runs that the token of `row` sees; None where it sees others in part."""
        at, skipped = self._rest.get(row.first, (0, 0))
        lines: list[Line] = []
        for segment in row.sequence.segments[at:]:
            low, skipped = skipped, 0
            if segment.end - 1 > row.position or (window is not None and not segment.whole):
                return None
            if window is not None:
                low = max(low, row.position - window + 1 - segment.start - segment.shift)
            if segment.shift not in turned:
                turned[segment.shift] = self.rotations[layer].turn(turned[0], -segment.shift)
            query = turned[segment.shift][row.first].data_ptr()
            lines += self._of_segment(layer, row, segment, low, query)
        return lines

    def _of_segment(self, layer: int, row: Row, segment: Segment, low: int, query: int) -> list[Line]:
        """The runs of a segment from entry `low` on, seen by the query at an address."""
        alive = 0 if segment.alive is None else segment.alive.ctypes.data
        lines: list[Line] = []
        for run in segment.runs(layer):
            length = min(int(segment.entries[layer, run.head]) - run.first, run.room)
            skipped = max(0, low - run.first)
            if length <= skipped:
                continue
            keys, values = run.keys, run.values
            written = segment is row.tail and run.first <= row.entry < run.first + run.room
            lines.append(
                (
                    *(row.first, run.head, run.heads),
                    *(x.data_ptr() + skipped * x.stride(1) * x.element_size() for x in (keys, values)),
                    *(x.stride(0) * x.element_size() for x in (keys, values)),
                    *(length - skipped, query, alive and alive + run.first + skipped, written),
                )
            )
        return lines
