"""What the sequences of a decoding step share, as whole pages: the one group whose pages are read once for all."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

from longreach.attention.shared import shared_beginnings
from longreach.attention.step import Row

WORTH = 1 << 17
"""Entries that are spared at least, counted once for each row but the first: between where sharing was measured to be
slower (30,720 spared) and quicker (245,760) on an H100 (`bench/gpu_engine.py`)."""


@dataclass(frozen=True, slots=True)
class Group:
    """The rows `members` of a step begin with the same `columns` pages, in every stream."""

    members: tuple[int, ...] = ()
    columns: int = 0

    def cut(self, row: int) -> int:
        """How many of its first pages `row` does not read for itself."""
        return self.columns if row in self.members else 0


def group_of(rows: Many[Row], worth: int) -> Group:
    """The group that spares most; an empty one where none spares `worth` entries. Rows have one token each."""
    found = shared_beginnings(rows, 1) if all(row.reader is None for row in rows) else None
    best, most = Group(), 0
    for part in found.parts if found else []:
        members = tuple(part.tokens.tolist())
        segments = rows[members[0]].sequence.segments
        before = segments[: segments.index(part.segment)]
        if part.segment.shift or any(segment.shift for segment in before):
            continue
        size = part.segment.pool.page_size
        columns = sum(-(-len(segment) // size) for segment in before) + (part.first + part.length) // size
        spared = columns * size * (len(members) - 1)
        if spared >= max(worth, most + 1):
            best, most = Group(members, columns), spared
    return best
