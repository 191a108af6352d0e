"""Beginnings that several sequences of a step have alike: they can be attended to once, by the queries of all of them
(Juravsky et al. 2024, "Hydragen", arXiv 2402.05099)."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
import torch

from longreach.attention.step import Row
from longreach.kv.segment import Segment

WORTH = 64
"""Entries that are spared at least, counted once for each row but the first. Sharing was quicker from 2 rows and 16
entries on (1.1 times), but what is shared has to be found once a step."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Entries `first .. first + length - 1` of `segment`, which the sequences of the tokens `tokens` of a step have
    alike, at the same place."""

    tokens: torch.Tensor
    segment: Segment
    first: int
    length: int


@dataclass(frozen=True, slots=True)
class SharedBeginnings:
    """What the rows of a step share. `rest` says for the first token of a row in which segment and at which entry its
    own begins; `reach` how far the farthest entry is from whoever sees it."""

    parts: list[Shared]
    rest: dict[int, tuple[int, int]]
    reach: int

    def within(self, window: int | None) -> bool:
        """Whether everybody sees all that it shares."""
        return window is None or self.reach < window


def shared_beginnings(rows: Many[Row], worth: int = WORTH) -> SharedBeginnings | None:
    """What sequences share whose new tokens attend to all of it; None where that spares less than `worth` entries."""
    plain = [row for row in rows if row.positions is None and row.watcher is None and row.reader is None]
    if len(plain) < 2:
        return None
    found = SharedBeginnings([], {}, max(row.last for row in plain))
    _split(plain, found, worth)
    return found if found.parts else None


def _split(rows: Many[Row], found: SharedBeginnings, worth: int) -> None:
    """Add what groups of `rows` share beyond what all of them share, and what groups of those share, and so on."""
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        at, entry = found.rest.get(row.first, (0, 0))
        segments = row.sequence.segments
        if at < len(segments) and entry == len(segments[at]):
            at, entry = at + 1, 0
        segment = segments[at] if at < len(segments) else None
        if segment is not None and segment.whole and segment.alive is None and entry < len(segment):
            # Layers may have let go of the page; then it is -1 there.
            page = int(segment.table[:, 0, entry // segment.pool.page_size].max())
            groups.setdefault((page, segment.shift, segment.start, entry), []).append(row)
            found.rest[row.first] = at, entry
    for (page, *_, first), group in groups.items():
        if page < 0 or len(group) < 2:
            continue
        own = [row.sequence.segments[found.rest[row.first][0]] for row in group]
        length = min(_alike(own[0], other, first) for other in own[1:])
        end = own[0].start + own[0].shift + first + length
        if length == 0 or any(row.position < end for row in group):
            continue
        before, known = len(found.parts), {row.first: found.rest[row.first] for row in group}
        tokens = torch.cat([torch.arange(row.first, row.first + row.count) for row in group])
        found.parts.append(Shared(tokens, own[0], first, length))
        for row in group:
            found.rest[row.first] = known[row.first][0], first + length
        _split(group, found, worth)
        if length * (len(group) - 1) < worth and len(found.parts) == before + 1:  # nor does what lies behind it
            found.parts.pop()
            found.rest.update(known)


def _alike(one: Segment, other: Segment, first: int) -> int:
    """How many entries from `first` on lie in the same pages of both."""
    size, entries = one.pool.page_size, min(len(one), len(other))
    column = first // size
    own, its = (segment.table[:, :, column : -(-entries // size)] for segment in (one, other))
    same = ((own == its) | (own < 0) | (its < 0)).all((0, 1))
    alike = len(same) if same.all() else int(np.argmin(same))
    return min(entries, (column + alike) * size) - first
