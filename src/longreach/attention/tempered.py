"""A step in which what stands side by side is attended to by itself, more sharply or less, and then put together with
the rest (Yang et al. 2025, arXiv 2502.05431).

No kernel knows of it: one step of any kind has the rows without those segments, another of the same kind attends to
them alone, with another scale, and the log-sum-exps say how the two go together.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import TypeAlias

import torch

from longreach.attention.attend import Scores
from longreach.attention.merge import Part, merge
from longreach.attention.step import Row, Step
from longreach.kv.sequence import Sequence
from longreach.kv.temper import Temper

Make: TypeAlias = Callable[[Many[Row]], Step]
"""A step of some kind for these rows."""


class TemperedStep:
    """As the steps that `make` makes, for `rows` of which some sequences have tempered segments, all with the same
    temper, behind which the new tokens stand. For models whose layers all see all of the text."""

    def __init__(self, make: Make, rows: Many[Row]) -> None:
        self._apart: dict[int, _Apart] = {}
        self._rows = rows
        self._inner = make([replace(row, sequence=self._of(row.sequence).rest) for row in rows])
        self._aside = make([])

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scores: Scores) -> Part:
        """See `Step.attend`."""
        output, lse = self._inner.attend(layer, query, key, value, scores)
        for row in self._rows:
            if row.sequence.tempered:
                own = slice(row.first, row.first + row.count)
                output[own], lse[own] = self._joined(layer, query[own], row, scores, (output[own], lse[own]))
        return output, lse

    def past(self, layer: int, query: torch.Tensor, row: Row, scores: Scores) -> Part:
        """See `Step.past`."""
        view = replace(row, sequence=self._of(row.sequence).rest)
        return self._joined(layer, query, row, scores, self._aside.past(layer, query, view, scores))

    def _joined(self, layer: int, query: torch.Tensor, row: Row, scores: Scores, rest: Part) -> Part:
        """`rest` and what the tokens of a row see of tempered segments."""
        apart = self._of(row.sequence)
        if apart.temper is None:
            return rest
        sharp = replace(scores, scale=scores.scale / apart.temper.temperature)
        view = Row(apart.beside, 0, len(query), row.position, 0)
        output, lse = self._aside.past(layer, query, view, sharp)
        return merge([rest, (output, lse * apart.temper.scale)])

    def _of(self, sequence: Sequence) -> _Apart:
        if id(sequence) not in self._apart:
            self._apart[id(sequence)] = _Apart(sequence)
        return self._apart[id(sequence)]


class _Apart:
    """A sequence in two: the tempered segments `beside` each other, and the `rest` with its tail."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence  # held, so that nothing else gets its id
        tempers = {segment.temper for segment in sequence.segments} - {None}
        assert len(tempers) <= 1
        self.temper: Temper | None = tempers.pop() if tempers else None
        self.rest, self.beside = (
            replace(sequence, segments=[one for one in sequence.segments if (one.temper is None) == plain])
            for plain in (True, False)
        )
